// castellan svid: each verb in its own file.
import type { Register } from '../register.ts'
import { svidFetchCommand } from './svid-fetch.ts'
import { svidVerifyCommand } from './svid-verify.ts'
import { svidWatchCommand } from './svid-watch.ts'
import { svidWriteCommand } from './svid-write.ts'

export function svidCommands(register: Register): void {
  svidFetchCommand(register)
  svidVerifyCommand(register)
  svidWatchCommand(register)
  svidWriteCommand(register)
}

// castellan svid: each verb in its own file.
import type { Register } from '../register.ts'
import { svidFetchCommand } from './svid-fetch.ts'
import { svidVerifyCommand } from './svid-verify.ts'

export function svidCommands(register: Register): void {
  svidFetchCommand(register)
  svidVerifyCommand(register)
}

// Where a running `castellan dev` is found: one small file under $XDG_RUNTIME_DIR, or the temporary folder.
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { writeDurably } from '../../runtime/durable.ts'

const devAddress = z.strictObject({
  pid: z.number(),
  caSocket: z.string(),
  adminSocket: z.string(),
  /** caller → destination → URL of the caller's outbound listener */
  calls: z.record(z.string(), z.record(z.string(), z.string())),
  /** service name → SPIFFE ID */
  identities: z.record(z.string(), z.string()),
})

export type DevAddress = z.infer<typeof devAddress>
type Environment = Readonly<Record<string, string | undefined>>

function pathIn(env: Environment): string {
  const folder = env.XDG_RUNTIME_DIR
  if (folder !== undefined && folder !== '') return join(folder, 'castellan-dev.json')
  return join(tmpdir(), `castellan-dev-${userInfo().uid}.json`)
}

/** Whether a process of that number runs; one of another user counts as none. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** The demonstration that runs now; undefined when there is none. */
export function readDevAddress(env: Environment): DevAddress | undefined {
  try {
    const address = devAddress.parse(JSON.parse(readFileSync(pathIn(env), 'utf8')))
    return isAlive(address.pid) ? address : undefined
  } catch {
    // absent, or left by a program that was killed: the same as none
    return undefined
  }
}

export function writeDevAddress(env: Environment, address: DevAddress): Disposable {
  const path = pathIn(env)
  writeDurably(path, JSON.stringify(address), { mode: 0o600 })
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) }
}

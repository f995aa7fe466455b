// The configuration of castellan svid write, key by key.
import { z } from 'zod'
import { address, loadConfig, pathRelativeTo } from '../../runtime/config.ts'
import { ownFileSets } from './config.ts'

function writeConfig(file: string) {
  return z.strictObject({
    /** the agent's public socket; SPIFFE_ENDPOINT_SOCKET when left out */
    workloadApi: z.string().optional(),
    /** host:port of /livez, /readyz and /metrics; nobody listens when left out */
    operations: address.optional(),
    logLevel: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
    /** what is written where */
    sets: ownFileSets(pathRelativeTo(file)),
  })
}

export type WriteConfig = z.infer<ReturnType<typeof writeConfig>>

/** Paths in it are relative to its folder. Throws ERR_CONFIG. */
export function loadWriteConfig(file: string): WriteConfig {
  return loadConfig(file, writeConfig(file))
}

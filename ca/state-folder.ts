// What lies where in an authority's state folder, and what opens it.
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { privateFolder, writeDurably } from '../runtime/durable.ts'
import { readSecret, type SealingSecret } from '../runtime/sealed.ts'
import type { CaConfig } from './config.ts'

export function storePath(state: string): string {
  return join(state, 'castellan.db')
}

/** of the sealed keys */
export function keysFolder(state: string): string {
  return join(state, 'keys')
}

/** Throws ERR_SEALED when it is not there, or others can read it. */
export function unlockingSecret({ unlock }: CaConfig): SealingSecret {
  return readSecret('keyFile' in unlock ? unlock.keyFile : unlock.passphraseFile)
}

function replicaPath(state: string): string {
  return join(state, 'replica')
}

/** Whether `castellan ca init` was run for this configuration. */
export function isInitialised({ state, store }: CaConfig): boolean {
  return existsSync(store === undefined ? storePath(state) : replicaPath(state))
}

/** What this authority is called among those on one store; empty where there is no other. */
export function replicaOf({ state, store }: CaConfig): string {
  return store === undefined ? '' : readFileSync(replicaPath(state), 'utf8').trim()
}

/**
 * Prepares a first start: the state folder, and the key file when the configuration names one that is
 * missing. A passphrase file is never made up: it has to be there.
 */
export function prepareState({ state, unlock, store }: CaConfig): void {
  privateFolder(state)
  if (store !== undefined && !existsSync(replicaPath(state))) {
    const name = `${hostname()}-${randomBytes(3).toString('hex')}`
    writeDurably(replicaPath(state), `${name}\n`, { mode: 0o600 })
  }
  if ('keyFile' in unlock && !existsSync(unlock.keyFile)) {
    writeDurably(unlock.keyFile, `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600 })
  }
}

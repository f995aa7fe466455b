// Private keys of authorities, sealed: as files of this replica, or in the store for all replicas.
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { privateFolder, sync, writeDurably } from '../../runtime/durable.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { type SealingSecret, seal, unseal } from '../../runtime/sealed.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { AuthorityKind } from '../store/model.ts'

export interface KeyKeeper {
  /** Durable before it returns; else what is to be stored with the authority. */
  save(id: string, key: KeyObject): Uint8Array
  /**
   * `sealed` is what is stored with the authority. Throws ERR_SEALED when the key is missing or the secret
   * does not open it.
   */
  load(id: string, sealed?: Uint8Array): KeyObject
  /** Removes the keys of all other authorities: what a crash or a retirement left. */
  keepOnly(ids: readonly string[]): void
}

function sealKey(key: KeyObject, secret: SealingSecret, purpose: string): Buffer {
  const pkcs8 = key.export({ format: 'der', type: 'pkcs8' })
  const sealed = seal(pkcs8, secret, purpose)
  pkcs8.fill(0)
  return sealed
}

function unsealKey(sealed: Uint8Array, secret: SealingSecret, purpose: string): KeyObject {
  const pkcs8 = unseal(sealed, secret, purpose)
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  pkcs8.fill(0)
  return key
}

const purposeOf = (kind: AuthorityKind, id: string) => `${kind} authority ${id}`

/** Keys that lie in the store beside what they belong to; every replica has the secret. */
export function keysInStore(secret: SealingSecret, kind: AuthorityKind): KeyKeeper {
  return {
    save: (id, key) => sealKey(key, secret, purposeOf(kind, id)),
    load(id, sealed = new Uint8Array()) {
      try {
        return unsealKey(sealed, secret, purposeOf(kind, id))
      } catch (cause) {
        throw new IdentityError(
          'ERR_SEALED',
          `the key of ${kind} authority ${id} in the store is sealed with another secret: give this replica the key file or passphrase of the others`,
          { cause },
        )
      }
    },
    keepOnly() {},
  }
}

const suffix = '.sealed'

/** Keys of one kind; those of other kinds in the same folder are left alone. */
export function openKeyFolder(
  folder: string,
  secret: SealingSecret,
  kind: AuthorityKind = 'x509',
): KeyKeeper {
  privateFolder(folder)
  const prefix = join(folder, `${kind}-`)
  const pathOf = (id: string) => `${prefix}${id}${suffix}`
  return {
    save(id, key) {
      writeDurably(pathOf(id), sealKey(key, secret, purposeOf(kind, id)), { mode: 0o600 })
      return new Uint8Array()
    },
    load(id) {
      let sealed: Buffer
      try {
        sealed = readFileSync(pathOf(id))
      } catch (cause) {
        throw new IdentityError(
          'ERR_SEALED',
          `the key of authority ${id} cannot be read from ${pathOf(id)} (${errnoOf(cause)})`,
          { cause },
        )
      }
      return unsealKey(sealed, secret, purposeOf(kind, id))
    },
    keepOnly(ids) {
      const known = new Set(ids.map(pathOf))
      const stale = readdirSync(folder)
        .map((name) => join(folder, name))
        .filter((path) => path.startsWith(prefix) && path.endsWith(suffix) && !known.has(path))
      for (const path of stale) rmSync(path)
      if (stale.length > 0) sync(folder)
    },
  }
}

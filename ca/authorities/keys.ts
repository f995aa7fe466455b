// Private keys of authorities as sealed files, one each, in a folder of their own.
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { privateFolder, syncFolder, writeDurably } from '../../runtime/durable.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { type SealingSecret, seal, unseal } from '../../runtime/sealed.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { AuthorityKind } from '../store/store.ts'

export interface KeyFolder {
  /** Durable before it returns. */
  save(id: string, key: KeyObject): void
  /** Throws ERR_SEALED when the key is missing or the secret does not open it. */
  load(id: string): KeyObject
  /** Removes the keys of all other authorities: what a crash or a retirement left. */
  keepOnly(ids: readonly string[]): void
}

const suffix = '.sealed'

/** Keys of one kind; those of other kinds in the same folder are left alone. */
export function openKeyFolder(
  folder: string,
  secret: SealingSecret,
  kind: AuthorityKind = 'x509',
): KeyFolder {
  privateFolder(folder)
  const prefix = join(folder, `${kind}-`)
  const pathOf = (id: string) => `${prefix}${id}${suffix}`
  const purposeOf = (id: string) => `${kind} authority ${id}`
  return {
    save(id, key) {
      const pkcs8 = key.export({ format: 'der', type: 'pkcs8' })
      writeDurably(pathOf(id), seal(pkcs8, secret, purposeOf(id)), { mode: 0o600 })
      pkcs8.fill(0)
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
      const pkcs8 = unseal(sealed, secret, purposeOf(id))
      const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
      pkcs8.fill(0)
      return key
    },
    keepOnly(ids) {
      const known = new Set(ids.map(pathOf))
      const stale = readdirSync(folder)
        .map((name) => join(folder, name))
        .filter((path) => path.startsWith(prefix) && path.endsWith(suffix) && !known.has(path))
      for (const path of stale) rmSync(path)
      if (stale.length > 0) syncFolder(folder)
    },
  }
}

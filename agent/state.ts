// What the agent keeps on disk: its own SVID, key and bundle, sealed, replaced as one file.
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { privateFolder, writeDurably } from '../runtime/durable.ts'
import { drawnSecret, readSecret, type SealingSecret, seal, unseal } from '../runtime/sealed.ts'
import { bundleOf, type X509Bundle } from '../spiffe/bundle.ts'
import { parseCertificate } from '../spiffe/certificate.ts'
import type { KeyPair } from '../spiffe/csr.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { leafIdOf } from '../spiffe/svid.ts'
import type { AgentSvid } from './own-svid.ts'

export interface AgentState {
  readonly svid: AgentSvid
  readonly bundle: X509Bundle
}

export interface StateFile {
  /** undefined before the first attestation. Throws ERR_SEALED for a damaged file. */
  load(): AgentState | undefined
  /** Durable before it returns; ends a join that was begun. */
  save(state: AgentState): void
  /**
   * The key to join with, durable before it is used: an answer that is lost after it can be asked for
   * again. `isRetry` says that an earlier start began.
   */
  beginJoin(): { readonly keys: KeyPair; readonly isRetry: boolean }
  forget(): void
}

const base64 = z.string().transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
const stored = z.strictObject({
  chain: z.array(base64).min(1),
  key: base64,
  receivedAt: z.number(),
  bundle: z.array(base64).min(1),
})
const purpose = 'agent identity'
const joiningPurpose = 'agent key before its join'

/** The key file lies beside what it opens: it keeps copies of the one file useless, not of the folder. */
export function secretIn(folder: string): SealingSecret {
  privateFolder(folder)
  const path = join(folder, 'agent.key')
  if (!existsSync(path))
    writeDurably(path, `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600 })
  return readSecret(path)
}

function svidOf(
  chain: readonly Uint8Array[],
  key: KeyObject,
  receivedAt: number,
): AgentSvid | undefined {
  const [first] = chain
  if (first === undefined) return undefined
  const leaf = parseCertificate(first)
  return {
    id: leafIdOf(leaf),
    chain,
    key,
    serial: leaf.serial,
    notAfter: leaf.notAfter,
    receivedAt,
  }
}

export function openState(
  folder: string,
  trustDomain: TrustDomain,
  secret: SealingSecret,
): StateFile {
  const path = join(folder, 'identity.sealed')
  const joining = join(folder, 'joining.sealed')
  return {
    load() {
      if (!existsSync(path)) return undefined
      const text = unseal(readFileSync(path), secret, purpose, drawnSecret).toString('utf8')
      const { chain, key, receivedAt, bundle } = stored.parse(JSON.parse(text))
      const svid = svidOf(chain, privateKeyOf(key), receivedAt)
      return svid && { svid, bundle: bundleOf(trustDomain, bundle) }
    },
    save({ svid, bundle }) {
      const text = JSON.stringify({
        chain: svid.chain.map(encoded),
        key: encoded(bytesOf(svid.key)),
        receivedAt: svid.receivedAt,
        bundle: bundle.authorities.map(({ der }) => encoded(der)),
      })
      writeDurably(path, seal(Buffer.from(text), secret, purpose, drawnSecret), { mode: 0o600 })
      rmSync(joining, { force: true })
    },
    beginJoin() {
      if (existsSync(joining)) {
        const opened = unseal(readFileSync(joining), secret, joiningPurpose, drawnSecret)
        const privateKey = privateKeyOf(opened)
        return { keys: { privateKey, publicKey: createPublicKey(privateKey) }, isRetry: true }
      }
      const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
      const sealed = seal(bytesOf(keys.privateKey), secret, joiningPurpose, drawnSecret)
      writeDurably(joining, sealed, { mode: 0o600 })
      return { keys, isRetry: false }
    },
    forget: () => rmSync(path, { force: true }),
  }
}

const bytesOf = (key: KeyObject) => key.export({ format: 'der', type: 'pkcs8' })

function privateKeyOf(bytes: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.from(bytes), format: 'der', type: 'pkcs8' })
}

function encoded(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}

// Makers of JWT-SVIDs and WIT-SVIDs, good and bad: jose signs what it agrees to, node:crypto the rest.
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { CompactSign } from 'jose'
import type { TokenKey } from '../../spiffe/bundle-document.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import type { Refusal } from './refusal.ts'

export interface TokenSigner {
  readonly algorithm: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  /** what a bundle says of it */
  readonly key: TokenKey
}

const curves = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' } as const
const isCurve = (algorithm: string): algorithm is keyof typeof curves =>
  Object.hasOwn(curves, algorithm)

export function tokenSigner(algorithm = 'ES256', keyId = 'key-1', bits = 2048): TokenSigner {
  const { publicKey, privateKey } = isCurve(algorithm)
    ? generateKeyPairSync('ec', { namedCurve: curves[algorithm] })
    : generateKeyPairSync('rsa', { modulusLength: bits })
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
  return { algorithm, privateKey, publicKey, key: { keyId, publicKey: spki } }
}

/** Members of a header or payload; an undefined one is left out. */
export type Said = Readonly<Record<string, unknown>>

/** Signed by jose, with `alg` and `kid` of the signer unless `header` says otherwise. */
export async function signToken(signer: TokenSigner, payload: Said, header: Said = {}) {
  const { algorithm, key, privateKey } = signer
  return await new CompactSign(Buffer.from(JSON.stringify(payload)))
    .setProtectedHeader({ alg: algorithm, kid: key.keyId, ...header })
    .sign(privateKey)
}

/** Signed with ES256 as it is written, whatever it is. */
export function signText(
  signer: TokenSigner,
  header: string | Uint8Array,
  payload: string | Uint8Array,
): string {
  const signed = [header, payload].map((it) => Buffer.from(it).toString('base64url')).join('.')
  const key = { key: signer.privateKey, dsaEncoding: 'ieee-p1363' } as const
  return `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`
}

/** The refusal of `promise`; undefined when it resolves. Anything but an IdentityError is thrown on. */
export async function refusalFrom(promise: Promise<unknown>): Promise<Refusal | undefined> {
  try {
    await promise
    return undefined
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    return { code: error.code, message: explain(error) }
  }
}

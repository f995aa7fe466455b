// Certificate requests of every kind, good and bad, written without the code that reads them.
import { type KeyObject, type KeyPairKeyObjectResult, sign } from 'node:crypto'
import * as der from '../../spiffe/der-writer.ts'

const algorithms = {
  ec: {
    sha256: '1.2.840.10045.4.3.2',
    sha384: '1.2.840.10045.4.3.3',
    sha512: '1.2.840.10045.4.3.4',
  },
  rsa: {
    sha256: '1.2.840.113549.1.1.11',
    sha384: '1.2.840.113549.1.1.12',
    sha512: '1.2.840.113549.1.1.13',
  },
} as const

export type Hash = keyof (typeof algorithms)['ec']

export interface CsrChoices {
  readonly hash?: Hash
  /** instead of the key's own half */
  readonly signingKey?: KeyObject
  /** instead of the key as it is */
  readonly spki?: Uint8Array
  readonly version?: number
  /** what stands in the attributes' [0] */
  readonly attributes?: readonly Uint8Array[]
  /** behind the attributes */
  readonly extra?: readonly Uint8Array[]
  /** AlgorithmIdentifier instead of that of key and hash */
  readonly algorithm?: Uint8Array
}

function algorithmOf(key: KeyObject, hash: Hash): Uint8Array {
  if (key.asymmetricKeyType === 'rsa') {
    return der.sequence(der.oid(algorithms.rsa[hash]), der.element(0x05))
  }
  return key.asymmetricKeyType === 'ed25519'
    ? der.sequence(der.oid('1.3.101.112'))
    : der.sequence(der.oid(algorithms.ec[hash]))
}

export function makeCsr(keys: KeyPairKeyObjectResult, choices: CsrChoices = {}): Buffer {
  const { hash = 'sha256', signingKey = keys.privateKey } = choices
  const info = der.sequence(
    der.integer(Buffer.of(choices.version ?? 0)),
    der.sequence(),
    choices.spki ?? keys.publicKey.export({ format: 'der', type: 'spki' }),
    der.element(0xa0, ...(choices.attributes ?? [])),
    ...(choices.extra ?? []),
  )
  const algorithm = choices.algorithm ?? algorithmOf(signingKey, hash)
  const digest = signingKey.asymmetricKeyType === 'ed25519' ? null : hash
  return der.sequence(info, algorithm, der.bitString(sign(digest, info, signingKey)))
}

/** The extensionRequest attribute with a subjectAltName of these GeneralNames (tag, text). */
export function requestedNames(...names: readonly (readonly [number, string])[]): Buffer {
  const list = names.map(([tag, text]) => der.element(tag, Buffer.from(text, 'latin1')))
  const san = der.extension('2.5.29.17', der.sequence(...list), { critical: false })
  return der.sequence(der.oid('1.2.840.113549.1.9.14'), der.set(der.sequence(san)))
}

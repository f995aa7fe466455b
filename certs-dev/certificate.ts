// Writes certificates, right ones and wrong ones: nothing is checked here and every field can be chosen.
import { type KeyObject, randomBytes, sign } from 'node:crypto'
import { tags } from '../spiffe/der.ts'
import { bitString, element, integer, oid, sequence, set, time } from '../spiffe/der-writer.ts'

export interface SignatureAlgorithm {
  readonly identifier: Buffer
  /** null where the algorithm hashes by itself */
  readonly hash: string | null
}

const ecdsa = (arc: number, hash: string): SignatureAlgorithm => ({
  identifier: sequence(oid(`1.2.840.10045.4.${arc === 1 ? '1' : `3.${arc}`}`)),
  hash,
})
const rsa = (arc: number, hash: string): SignatureAlgorithm => ({
  identifier: sequence(oid(`1.2.840.113549.1.1.${arc}`), element(tags.null)),
  hash,
})

export const algorithms = {
  ecdsaSha1: ecdsa(1, 'sha1'),
  ecdsaSha256: ecdsa(2, 'sha256'),
  ecdsaSha384: ecdsa(3, 'sha384'),
  ecdsaSha512: ecdsa(4, 'sha512'),
  rsaSha1: rsa(5, 'sha1'),
  rsaSha256: rsa(11, 'sha256'),
  rsaSha384: rsa(12, 'sha384'),
  rsaSha512: rsa(13, 'sha512'),
  ed25519: { identifier: sequence(oid('1.3.101.112')), hash: null },
} as const satisfies Record<string, SignatureAlgorithm>

const usual: Readonly<Record<string, SignatureAlgorithm>> = {
  ec: algorithms.ecdsaSha256,
  rsa: algorithms.rsaSha256,
  ed25519: algorithms.ed25519,
}

/** The algorithm that a key signs with when nobody chose another. */
export function usualAlgorithmOf(key: KeyObject): SignatureAlgorithm {
  const algorithm = usual[key.asymmetricKeyType ?? '']
  if (algorithm === undefined) throw new TypeError(`no algorithm for ${key.asymmetricKeyType}`)
  return algorithm
}

export interface CertificateFields {
  /** as it is encoded: 2 (version 3) when left out; 0 (version 1) is not written */
  readonly version?: number
  /** magnitude; 16 random bytes when left out */
  readonly serial?: Uint8Array
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  /** milliseconds since the epoch */
  readonly notBefore: number
  readonly notAfter: number
  readonly publicKey: KeyObject
  readonly extensions: readonly Uint8Array[]
  readonly signingKey: KeyObject
  readonly algorithm?: SignatureAlgorithm
}

/** A random positive number of 127 bits. */
function randomSerial(): Buffer {
  const bytes = randomBytes(16)
  bytes.writeUInt8((bytes.readUInt8(0) & 0x7f) | 0x40, 0)
  return bytes
}

/** TBSCertificate, then the signature over it (RFC 5280 §4.1). */
export function writeCertificate(fields: CertificateFields): Buffer {
  const { version = 2, serial = randomSerial(), extensions, signingKey } = fields
  const algorithm = fields.algorithm ?? usualAlgorithmOf(signingKey)
  const tbs = sequence(
    ...(version === 0 ? [] : [element(0xa0, integer(Buffer.of(version)))]),
    integer(serial),
    algorithm.identifier,
    fields.issuer,
    sequence(time(fields.notBefore), time(fields.notAfter)),
    fields.subject,
    fields.publicKey.export({ type: 'spki', format: 'der' }),
    ...(extensions.length === 0 ? [] : [element(0xa3, sequence(...extensions))]),
  )
  return sequence(tbs, algorithm.identifier, bitString(sign(algorithm.hash, tbs, signingKey)))
}

/** A Name with these attributes, one RDN each: `distinguishedName(['2.5.4.3', 'root'])`. */
export function distinguishedName(...attributes: readonly (readonly [string, string])[]): Buffer {
  return sequence(
    ...attributes.map(([type, value]) =>
      set(sequence(oid(type), element(tags.utf8String, Buffer.from(value)))),
    ),
  )
}

export const commonName = (name: string): Buffer =>
  name === '' ? sequence() : distinguishedName(['2.5.4.10', 'castellan'], ['2.5.4.3', name])

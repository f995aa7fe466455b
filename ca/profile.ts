// The leaf's profile: from what was granted to the bytes that are signed (X509-SVID §4, Appendix A).
import { extensionOids, keyUsages } from '../spiffe/certificate.ts'
import { tags } from '../spiffe/der.ts'
import * as der from '../spiffe/der-writer.ts'
import { clientAuth, serverAuth } from '../spiffe/svid.ts'

export interface LeafFields {
  /** 16 random bytes, the highest bit of the first never set */
  readonly serial: Uint8Array
  /** Name of the signing authority, DER */
  readonly issuer: Uint8Array
  readonly authorityKeyId: Uint8Array
  readonly subjectKeyId: Uint8Array
  readonly spiffeId: string
  readonly dnsNames: readonly string[]
  /** milliseconds since the epoch; certificates carry seconds */
  readonly notBefore: number
  readonly notAfter: number
  /** SubjectPublicKeyInfo, DER */
  readonly publicKey: Uint8Array
}

export const ecdsaWithSha256 = der.sequence(der.oid('1.2.840.10045.4.3.2'))

const version3 = der.element(0xa0, der.integer(Buffer.of(2)))
const emptyName = der.sequence()
const critical = { critical: true } as const
// what is the same in every leaf is encoded once
const constant = Buffer.concat([
  der.extension(extensionOids.keyUsage, der.namedBits([keyUsages.digitalSignature]), critical),
  der.extension(
    extensionOids.extendedKeyUsage,
    der.sequence(der.oid(serverAuth), der.oid(clientAuth)),
    { critical: false },
  ),
  der.extension(extensionOids.basicConstraints, der.sequence(), critical),
])
const subjectKeyIdentifier = der.oid(extensionOids.subjectKeyIdentifier)
const authorityKeyIdentifier = der.oid(extensionOids.authorityKeyIdentifier)
const subjectAltNameCritical = Buffer.concat([
  der.oid(extensionOids.subjectAltName),
  der.element(tags.boolean, Buffer.of(0xff)),
])

function subjectAltName({ spiffeId, dnsNames }: LeafFields): Buffer {
  const names = [
    der.element(0x86, Buffer.from(spiffeId, 'latin1')),
    ...dnsNames.map((name) => der.element(0x82, Buffer.from(name, 'latin1'))),
  ]
  // critical because the subject is empty (RFC 5280 §4.1.2.6)
  return der.sequence(subjectAltNameCritical, der.octetString(der.sequence(...names)))
}

function keyIdentifiers({ subjectKeyId, authorityKeyId }: LeafFields): Buffer[] {
  const authority = der.sequence(der.element(0x80, authorityKeyId))
  return [
    der.sequence(subjectKeyIdentifier, der.octetString(der.octetString(subjectKeyId))),
    der.sequence(authorityKeyIdentifier, der.octetString(authority)),
  ]
}

/** The to-be-signed bytes of a leaf. */
export function leafTbs(fields: LeafFields): Buffer {
  return der.sequence(
    version3,
    der.integer(fields.serial),
    ecdsaWithSha256,
    fields.issuer,
    der.sequence(der.time(fields.notBefore), der.time(fields.notAfter)),
    emptyName,
    fields.publicKey,
    der.element(0xa3, der.sequence(constant, ...keyIdentifiers(fields), subjectAltName(fields))),
  )
}

export function wrapSigned(tbs: Uint8Array, signature: Uint8Array): Buffer {
  return der.sequence(tbs, ecdsaWithSha256, der.bitString(signature))
}

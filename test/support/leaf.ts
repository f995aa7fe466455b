// One real authority and leaves of it, made by the same steps as in issuance but without a store.
import { generateKeyPairSync, sign } from 'node:crypto'
import { type Authority, lonelyAuthority } from '../../ca/authorities/authorities.ts'
import type { Signing } from '../../ca/authorities/slot.ts'
import { type LeafFields, leafTbs, wrapSigned } from '../../ca/profile.ts'
import { createSerials } from '../../ca/serials.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'

const day = 86_400_000

/** An active authority of example.org that lives from a day ago for six more days. */
export async function testSigner(
  now: number,
  trustDomain = 'example.org',
): Promise<Signing<Authority>> {
  return await lonelyAuthority(parseTrustDomain(trustDomain), now - day, now + 6 * day)
}

/** What a leaf of `signer` says, with a new key, for an hour. */
export function leafFields(signer: Authority, now: number, change: Partial<LeafFields> = {}) {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const spki = change.publicKey ?? new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
  const fields: LeafFields = {
    serial: createSerials()(),
    issuer: signer.certificate.subject,
    authorityKeyId: signer.keyId,
    subjectKeyId: keyIdOf(spki),
    spiffeId: 'spiffe://example.org/ns/default/sa/payments',
    dnsNames: [],
    notBefore: now - 60_000,
    notAfter: now + 3_600_000,
    publicKey: spki,
    ...change,
  }
  return fields
}

export function signedLeaf(fields: LeafFields, { key }: Signing<Authority>): Buffer {
  const tbs = leafTbs(fields)
  return wrapSigned(tbs, sign('sha256', tbs, key))
}

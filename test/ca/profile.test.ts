// Every leaf that the profile writes, judged by three parsers that are not ours: Node's, @peculiar's and
// the openssl command's.
import { generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import type { Authority } from '../../ca/authorities/authorities.ts'
import type { Signing } from '../../ca/authorities/slot.ts'
import type { LeafFields } from '../../ca/profile.ts'
import { secondOpinion } from '../../ca/x509.ts'
import { bundleOf, bundleSourceOf } from '../../spiffe/bundle.ts'
import { hasUsage, keyUsages, parseCertificate } from '../../spiffe/certificate.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { clientAuth, serverAuth, verifySvid } from '../../spiffe/svid.ts'
import { leafFields, signedLeaf, testSigner } from '../support/leaf.ts'
import { opensslVerify } from '../support/openssl.ts'

const now = Date.UTC(2031, 4, 17, 12)
let signer: Signing<Authority>
beforeAll(async () => {
  signer = await testSigner(now)
})

const spkiOf = (key: KeyObject) => new Uint8Array(key.export({ format: 'der', type: 'spki' }))
const longestId = `spiffe://example.org/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`

/** Leaves of all shapes that a grant can ask for. */
const shapes: readonly (readonly [string, () => Partial<LeafFields>])[] = [
  ['plain', () => ({})],
  ['with DNS names', () => ({ dnsNames: ['a.example', '*.b.example', 'c'] })],
  [
    'with 64 DNS names',
    () => ({ dnsNames: Array.from({ length: 64 }, (_, i) => `n${i}.example`) }),
  ],
  ['of a second', () => ({ notBefore: now, notAfter: now + 1000 })],
  ['beyond 2050', () => ({ notAfter: Date.UTC(2050, 0, 1) })],
  ['ID-16 with an ID of 2048 bytes', () => ({ spiffeId: longestId })],
  [
    'with a P-384 key',
    () => ({ publicKey: spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey) }),
  ],
  [
    'with an RSA key',
    () => ({ publicKey: spkiOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey) }),
  ],
]

describe('a leaf', () => {
  it.each(shapes)('%s is read alike by Node and by @peculiar/x509', (_, change) => {
    const fields = leafFields(signer, now, change())
    const leaf = signedLeaf(fields, signer)
    const node = new X509Certificate(leaf)
    const names = [`URI:${fields.spiffeId}`, ...fields.dnsNames.map((name) => `DNS:${name}`)]
    expect(node.subjectAltName).toBe(names.join(', '))
    expect(node.subject).toBe(undefined)
    expect(node.serialNumber.toLowerCase()).toBe(Buffer.from(fields.serial).toString('hex'))
    expect(node.ca).toBe(false)
    expect(node.keyUsage).toEqual([serverAuth, clientAuth])
    expect(Date.parse(node.validFrom)).toBe(Math.floor(fields.notBefore / 1000) * 1000)
    expect(Date.parse(node.validTo)).toBe(Math.floor(fields.notAfter / 1000) * 1000)
    expect(spkiOf(node.publicKey)).toEqual(fields.publicKey)
    const authority = new X509Certificate(signer.certificate.der)
    expect(node.checkIssued(authority)).toBe(true)
    expect(node.verify(authority.publicKey)).toBe(true)
    expect(secondOpinion(leaf)).toEqual({ uris: [fields.spiffeId], isCa: false })
  })

  it('ID-16 of every shape is accepted by openssl verify -x509_strict and by our verifier', () => {
    const leaves = shapes.map(([, change]) => signedLeaf(leafFields(signer, now, change()), signer))
    const roots = [signer.certificate.der]
    const verdicts = opensslVerify(
      leaves.map((leaf) => ({ chain: [leaf], roots })),
      now,
    )
    expect(
      verdicts.map(({ verdict, output }) => (verdict === 'accept' ? 'accept' : output)),
    ).toEqual(shapes.map(() => 'accept'))
    const bundles = bundleSourceOf(bundleOf(parseTrustDomain('example.org'), roots))
    for (const leaf of leaves) expect(verifySvid([leaf], bundles, { now }).leaf.der).toEqual(leaf)
  })

  it('X5-1 X5-5 X5-10 X5-12 X5-14 X5-15 says what the standard demands of a leaf', () => {
    const leaf = parseCertificate(signedLeaf(leafFields(signer, now), signer))
    const extension = (oid: string) => leaf.extensions.get(oid)
    expect(leaf.names, 'X5-1 exactly one URI SAN').toEqual([
      { kind: 'uri', value: 'spiffe://example.org/ns/default/sa/payments' },
    ])
    expect(leaf.hasSubject, 'X5-5 no subject').toBe(false)
    expect(extension('2.5.29.17')?.critical, 'X5-5 so the SAN is critical').toBe(true)
    expect(extension('2.5.29.19')?.value, 'X5-10 cA false').toEqual(Buffer.of(0x30, 0))
    expect(leaf.isCa, 'X5-10 cA false').toBe(false)
    expect(extension('2.5.29.15')?.critical, 'X5-12 key usage is critical').toBe(true)
    expect(leaf.keyUsage, 'X5-14 digitalSignature alone').toBe(1 << keyUsages.digitalSignature)
    expect(hasUsage(leaf, keyUsages.keyCertSign), 'X5-14 no keyCertSign').toBe(false)
    expect(hasUsage(leaf, keyUsages.cRLSign), 'X5-14 no cRLSign').toBe(false)
    expect(leaf.extendedKeyUsage, 'X5-15 both purposes').toEqual([serverAuth, clientAuth])
  })

  it('reads back as it was granted, whatever was granted', () => {
    const segment = fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/)
    const label = fc.stringMatching(/^[a-z0-9]{1,20}$/)
    const granted = fc.record({
      path: fc.array(segment, { minLength: 1, maxLength: 6 }),
      dnsNames: fc.array(label, { maxLength: 4 }),
      lifetime: fc.integer({ min: 1000, max: 86_400_000 }),
    })
    fc.assert(
      fc.property(granted, ({ path, dnsNames, lifetime }) => {
        const spiffeId = `spiffe://example.org/${path.join('/')}`
        const change = { spiffeId, dnsNames, notAfter: now + lifetime }
        const leaf = parseCertificate(signedLeaf(leafFields(signer, now, change), signer))
        const dns = dnsNames.map((value) => ({ kind: 'dns', value }))
        expect(leaf.names).toEqual([{ kind: 'uri', value: spiffeId }, ...dns])
        expect(leaf.notAfter).toBe(Math.floor((now + lifetime) / 1000) * 1000)
      }),
      { numRuns: 60 },
    )
  })
})

import { createPublicKey, X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createAuthority, secondOpinion } from '../../ca/x509.ts'
import { hasUsage, keyUsages, parseCertificate } from '../../spiffe/certificate.ts'
import { leafFields, signedLeaf, testSigner } from '../support/leaf.ts'
import { opensslVerify } from '../support/openssl.ts'

const now = Date.UTC(2031, 4, 17, 12)
const times = { notBefore: now - 60_000, notAfter: now + 7 * 86_400_000 }

describe('an X.509 authority', () => {
  it('ID-20 ID-21 X5-6 X5-7 X5-10 X5-11 X5-12 X5-13 X5-16 says what the standard demands of a signing certificate', async () => {
    const { certificate } = await createAuthority({ trustDomain: 'example.org', ...times })
    const it = parseCertificate(certificate)
    const uris = it.names.map((name) => (name.kind === 'uri' ? name.value : name.kind))
    expect(uris, 'ID-20 X5-6 it carries an SVID itself').toEqual(['spiffe://example.org'])
    expect(new URL(uris.join()).pathname, 'ID-21 X5-6 without a path').toBe('')
    expect(new URL(uris.join()).host, 'ID-21 X5-7 of the domain it signs for').toBe('example.org')
    expect(it.isCa, 'X5-10 cA true').toBe(true)
    expect(it.pathLength).toBe(1)
    expect(it.extensions.get('2.5.29.19')?.critical).toBe(true)
    expect(it.extensions.get('2.5.29.15')?.critical, 'X5-12 key usage is critical').toBe(true)
    expect(hasUsage(it, keyUsages.keyCertSign), 'X5-13 keyCertSign').toBe(true)
    expect(hasUsage(it, keyUsages.cRLSign), 'X5-13 cRLSign').toBe(true)
    expect(hasUsage(it, keyUsages.digitalSignature), 'X5-13 no digitalSignature').toBe(false)
    expect(it.extendedKeyUsage, 'X5-16 no EKU').toBe(undefined)
    expect(it.nameConstraints, 'X5-11 none by default').toBe(undefined)
    expect(it.issuer).toEqual(it.subject)
    expect([it.notBefore, it.notAfter]).toEqual([times.notBefore, times.notAfter])
  })

  it('signs itself with the key it comes with', async () => {
    const { certificate, key } = await createAuthority({ trustDomain: 'example.org', ...times })
    const node = new X509Certificate(certificate)
    expect(node.verify(createPublicKey(key))).toBe(true)
    expect(key.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' })
    expect(secondOpinion(certificate)).toEqual({ uris: ['spiffe://example.org'], isCa: true })
  })

  it('has a subject of its own, so that two of one trust domain are told apart', async () => {
    const make = () => createAuthority({ trustDomain: 'example.org', ...times })
    const [one, two] = (await Promise.all([make(), make()])).map(({ certificate }) =>
      parseCertificate(certificate),
    )
    expect(one?.subject).not.toEqual(two?.subject)
    expect(one?.serial).not.toBe(two?.serial)
    expect(one?.serial).toMatch(/^[4-7][0-9a-f]{31}$/)
  })

  it('of a trust domain of 255 bytes is still a certificate', async () => {
    const trustDomain = 'a'.repeat(255)
    const signer = await testSigner(now, trustDomain)
    const root = signer.certificate.der
    expect(secondOpinion(root).uris).toEqual([`spiffe://${trustDomain}`])
    const spiffeId = `spiffe://${trustDomain}/x`
    const leaf = signedLeaf(leafFields(signer, now, { spiffeId }), signer)
    const [own, foreign] = opensslVerify(
      [
        { chain: [leaf], roots: [root] },
        { chain: [root], roots: [root] },
      ],
      now,
    )
    expect(own?.verdict, own?.output).toBe('accept')
    expect(foreign?.output, 'an authority serves nobody as client or server').toContain(
      'unsuitable certificate purpose',
    )
  })
})

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { bundleOfPem, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { parsePem } from '../../spiffe/pem.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { refusalOf } from '../support/refusal.ts'

const folder = new URL('../vectors/corpus-certs/', import.meta.url)
const read = (file: string) => readFileSync(new URL(file, folder), 'utf8')

const manifest = z
  .strictObject({
    role: z.literal('client'),
    key: z.strictObject({ curve: z.literal('P-256'), scalar: z.string() }),
    certificates: z.array(
      z.strictObject({
        row: z.number(),
        file: z.string(),
        bundles: z.record(z.string(), z.string()),
        expect: z.enum(['accept', 'reject']),
        reason: z.string(),
      }),
    ),
  })
  .parse(JSON.parse(read('manifest.json')))

/** What our verifier says, where the corpus only says that it refuses. */
const reasons: Readonly<Record<string, string>> = {
  'expired.pem': 'expired at',
  'not-yet-valid.pem': 'not valid before',
  'unknown-root.pem': 'no path to a root of the bundle',
  'upper-trust-domain.pem': 'a URI name that is no SPIFFE ID',
  'trailing-slash.pem': 'a URI name that is no SPIFFE ID',
  'double-slash.pem': 'a URI name that is no SPIFFE ID',
  'query.pem': 'a URI name that is no SPIFFE ID',
  'fragment.pem': 'a URI name that is no SPIFFE ID',
  'two-uris-good-first.pem': '2 URI names instead of exactly one',
  'two-uris-evil-first.pem': '2 URI names instead of exactly one',
  'dns-that-looks-like-a-uri.pem': '0 URI names instead of exactly one',
  'nul-in-uri.pem': 'a URI name that is no SPIFFE ID',
  'other-trust-domains-intermediate.pem': 'no path to a root of the bundle',
}

// the corpus is judged by the real clock; its good certificates outlive us
const now = Date.now()

describe('the corpus of certificates', () => {
  it.each(manifest.certificates)('$file: $expect, $reason', ({ file, bundles, expect: wanted }) => {
    const source = bundleSourceOf(
      ...Object.entries(bundles).map(([name, roots]) =>
        bundleOfPem(parseTrustDomain(name), read(roots), roots),
      ),
    )
    const chain = parsePem(read(file), 'CERTIFICATE', file)
    const refusal = refusalOf(() => verifySvid(chain, source, { now }))
    if (wanted === 'accept') expect(refusal).toBeUndefined()
    else {
      expect(refusal?.code).toBe('ERR_UNTRUSTED')
      expect(refusal?.message).toContain(reasons[file] ?? 'a reason that is missing above')
    }
  })

  it('is whole: each file of the folder is named by the manifest', () => {
    const named = manifest.certificates.flatMap(({ file, bundles }) => [
      file,
      ...Object.values(bundles),
    ])
    const files = readdirSync(folder).filter((name) => name !== 'manifest.json')
    expect(files.toSorted()).toEqual([...new Set(named)].toSorted())
  })

  it('has the key of its leaves', () => {
    const leaf = new X509Certificate(read('good.pem'))
    const { x = '', y = '' } = leaf.publicKey.export({ format: 'jwk' })
    const d = Buffer.from(manifest.key.scalar, 'hex').toString('base64url')
    const key = createPrivateKey({ key: { kty: 'EC', crv: 'P-256', x, y, d }, format: 'jwk' })
    expect(leaf.checkPrivateKey(key)).toBe(true)
  })
})

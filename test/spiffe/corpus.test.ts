import { X509Certificate } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { bundleSourceOf } from '../../spiffe/bundle.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import {
  certificatesFolder,
  corpusCertificateFiles,
  corpusCertificates,
  leafKey,
} from '../support/corpus-certificates.ts'
import { refusalOf } from '../support/refusal.ts'

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
  it.each(corpusCertificates)(
    '$file: $expect, $reason',
    ({ file, chain, bundles, expect: wanted }) => {
      const refusal = refusalOf(() => verifySvid(chain, bundleSourceOf(...bundles), { now }))
      if (wanted === 'accept') expect(refusal).toBeUndefined()
      else {
        expect(refusal?.code).toBe('ERR_UNTRUSTED')
        expect(refusal?.message).toContain(reasons[file] ?? 'a reason that is missing above')
      }
    },
  )

  it('is whole: each file of the folder is named by the manifest', () => {
    const files = readdirSync(certificatesFolder).filter((name) => name !== 'manifest.json')
    expect(files.toSorted()).toEqual([...corpusCertificateFiles].toSorted())
  })

  it('has the key of its leaves', () => {
    for (const { chain } of corpusCertificates) {
      const [leaf = Buffer.alloc(0)] = chain
      expect(new X509Certificate(leaf).checkPrivateKey(leafKey())).toBe(true)
    }
  })
})

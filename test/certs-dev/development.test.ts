import { createPrivateKey, X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  type DevCertificate,
  hour,
  leafLifetime,
  makeDevelopmentCertificates,
} from '../../certs-dev/development.ts'
import { bundleOf, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { hasOpenssl, opensslVerify } from '../support/openssl.ts'
import { refusalOf } from '../support/refusal.ts'

const now = Date.UTC(2030, 1, 2)
const trustDomain = parseTrustDomain('dev.example')
const certificates = makeDevelopmentCertificates({ trustDomain, now })
const [root, intermediate] = certificates
const bundles = bundleSourceOf(bundleOf(trustDomain, root.chain))
const named = (name: string): DevCertificate => {
  const found = certificates.find((it) => it.name === name)
  if (found === undefined) throw new TypeError(`no ${name}`)
  return found
}
const at = (it: DevCertificate, time: number) =>
  refusalOf(() => verifySvid(it.chain, bundles, { now: time }))

describe('the development certificates', () => {
  it.each(certificates)('$name: $expect, $reason', (it) => {
    const refusal = at(it, now)
    if (it.expect === 'accept') expect(refusal).toBeUndefined()
    else {
      expect(refusal).toEqual({
        code: 'ERR_UNTRUSTED',
        message: expect.stringContaining(it.reason),
      })
    }
  })

  it('begin with the root and the intermediate, and have each name once', () => {
    expect([root.name, intermediate.name]).toEqual(['root', 'intermediate'])
    const names = certificates.map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
  })

  it('come with the key of the leaf, and no two share one', () => {
    for (const { name, chain, privateKey } of certificates) {
      const [leaf = Buffer.alloc(0)] = chain
      expect(new X509Certificate(leaf).checkPrivateKey(privateKey), name).toBe(true)
    }
    const keys = certificates.map((it) => it.privateKey.export({ type: 'pkcs8', format: 'pem' }))
    expect(new Set(keys).size).toBe(keys.length)
    expect(createPrivateKey(String(keys[0])).type).toBe('private')
  })

  it('have the names and purposes that their users expect', () => {
    const svid = verifySvid(named('good').chain, bundles, { now })
    expect(svid.id).toBe('spiffe://dev.example/ns/default/sa/good')
    expect(svid.path).toHaveLength(3)
    const client = verifySvid(named('good-client').chain, bundles, { now })
    expect(client.id).toBe('spiffe://dev.example/ns/default/sa/client')
  })

  it('are good for their lifetime and not a second longer', () => {
    const good = named('good')
    expect(at(good, now - hour)).toBeUndefined()
    expect(at(good, now + leafLifetime)).toBeUndefined()
    expect(at(good, now + leafLifetime + 1)?.message).toContain('expired at')
    expect(at(good, now - hour - 1)?.message).toContain('not valid before')
  })

  it('stay refused when what makes them wrong is a matter of time alone', () => {
    const early = named('not-yet-valid')
    expect(at(early, now + leafLifetime)?.message).toContain('not valid before')
    expect(at(early, now + 2 * leafLifetime)).toBeUndefined()
    expect(at(named('expired'), now - 2 * hour)).toBeUndefined()
  })

  it.skipIf(!hasOpenssl())('are accepted by openssl where we accept them', () => {
    const good = certificates.filter((it) => it.expect === 'accept')
    const questions = good.map(({ chain }) => ({ chain, roots: root.chain }))
    const verdicts = opensslVerify(questions, now)
    expect(verdicts.map(({ verdict }) => verdict)).toEqual(good.map(() => 'accept'))
    expect(good.length).toBeGreaterThanOrEqual(3)
  })
})

import { describe, expect, it } from 'vitest'
import { issueDev, type LeafChoices } from '../../certs-dev/authority.ts'
import { commonName, distinguishedName } from '../../certs-dev/certificate.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  generalName,
  keyUsage,
  nameConstraints,
  noAuthority,
  subjectAltName,
} from '../../certs-dev/extensions.ts'
import { bundleOf, bundleSourceOf } from '../../spiffe/bundle.ts'
import { keyUsages, parseCertificate } from '../../spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { matchId } from '../../spiffe/match.ts'
import { clientAuth, leafIdOf, serverAuth, verifySvid } from '../../spiffe/svid.ts'
import { refusalOf } from '../support/refusal.ts'
import { ca, leaf, now } from '../support/vectors.ts'

const { uri, dns, email, ip } = generalName
const { digitalSignature, keyCertSign, cRLSign } = keyUsages
const ours = parseTrustDomain('example.org')
const theirs = parseTrustDomain('example.com')
const id = 'spiffe://example.org/workload'

const ownId = (trustDomain: string) => ({ name: subjectAltName([uri(`spiffe://${trustDomain}`)]) })
const root = ca('root', { extensions: ownId('example.org') })
const intermediate = ca('intermediate', { parent: root, extensions: ownId('example.org') })
const foreignRoot = ca('foreign root', { extensions: ownId('example.com') })
const bundles = bundleSourceOf(
  bundleOf(ours, [root.certificate]),
  bundleOf(theirs, [foreignRoot.certificate]),
)

const sans = (...names: readonly Uint8Array[]): Partial<LeafChoices> => ({
  extensions: { subjectAltName: subjectAltName(names, { critical: true }) },
})
const usage = (...bits: readonly number[]): Partial<LeafChoices> => ({
  extensions: { keyUsage: keyUsage(bits) },
})

const verify = (chain: readonly Uint8Array[]) => verifySvid(chain, bundles, { now })
const accepted = (choices: Partial<LeafChoices>) => String(verify(leaf(intermediate, choices)).id)

function expectRefused(chain: readonly Uint8Array[], message: string): void {
  expect(refusalOf(() => verify(chain))).toEqual({ code: 'ERR_UNTRUSTED', message })
}
const expectLeafRefused = (choices: Partial<LeafChoices>, message: string) =>
  expectRefused(leaf(intermediate, choices), message)

describe('what makes a leaf an X509-SVID', () => {
  it('X5-1 exactly one URI SAN: none is refused, two are even when equal', () => {
    expect(accepted({})).toBe(id)
    expectLeafRefused(
      { extensions: { subjectAltName: null } },
      '0 URI names instead of exactly one',
    )
    expectLeafRefused(sans(dns('example.org')), '0 URI names instead of exactly one')
    expectLeafRefused(sans(uri(id), uri(id)), '2 URI names instead of exactly one')
  })

  it('X5-2 the validator refuses a second URI, whatever it is and wherever it stands', () => {
    for (const other of ['https://example.org', 'spiffe://example.com/a', '']) {
      const message = '2 URI names instead of exactly one'
      expectLeafRefused(sans(uri(id), uri(other)), message)
      expectLeafRefused(sans(uri(other), dns('a'), uri(id)), message)
    }
  })

  it('X5-3 any number of other names may stand beside it', () => {
    const hosts = ['a', 'b', 'c', 'd', 'e'].map((name) => dns(`${name}.example`))
    expect(accepted(sans(...hosts, uri(id), email('a@b'), ip(10, 0, 0, 1)))).toBe(id)
  })

  it('X5-4 X5-25 the ID has a path', () => {
    expectLeafRefused({ id: 'spiffe://example.org' }, 'a SPIFFE ID without a path')
    expectLeafRefused({ id: 'spiffe://example.org/' }, 'a URI name that is no SPIFFE ID')
  })

  it('X5-5 an empty subject asks for a critical SAN', () => {
    const extensions = { subjectAltName: subjectAltName([uri(id)]) }
    const message = 'an empty subject beside a subject alternative name that is not critical'
    expectLeafRefused({ extensions }, message)
    expect(accepted({ extensions, subject: commonName('a') })).toBe(id)
    expect(accepted({ subject: commonName('a') })).toBe(id)
  })

  it('X5-9 a signing certificate never authenticates', () => {
    const extensions = { basicConstraints: basicConstraints() }
    expectLeafRefused({ extensions }, 'a CA certificate, which never authenticates')
    expectRefused(intermediate.chain, 'a SPIFFE ID without a path')
    expectRefused([root.certificate], 'a SPIFFE ID without a path')
    const workloadCa = ca('a', { parent: root, extensions: { name: subjectAltName([uri(id)]) } })
    expectRefused(workloadCa.chain, 'a CA certificate, which never authenticates')
  })

  it('X5-10 cA is false on a leaf, by absence or by an empty extension', () => {
    expect(accepted({ extensions: { basicConstraints: noAuthority() } })).toBe(id)
    expect(accepted({ extensions: { basicConstraints: null } })).toBe(id)
  })

  it('X5-12 key usage is present and critical', () => {
    expectLeafRefused({ extensions: { keyUsage: null } }, 'no critical key usage')
    const lax = keyUsage([digitalSignature], { critical: false })
    expectLeafRefused({ extensions: { keyUsage: lax } }, 'no critical key usage')
  })

  it('X5-14 X5-25 digitalSignature is set, keyCertSign and cRLSign are clear', () => {
    const [keyEncipherment, keyAgreement] = [2, 4]
    expect(accepted(usage(digitalSignature, keyEncipherment, keyAgreement))).toBe(id)
    expectLeafRefused(usage(keyEncipherment), 'a key usage without digitalSignature')
    expectLeafRefused(usage(), 'a key usage without digitalSignature')
  })

  it('X5-15 extended key usage, when present, has both purposes; criticality is free', () => {
    const purposes = (ids: readonly string[], critical = false) => ({
      extensions: { extendedKeyUsage: extendedKeyUsage(ids, { critical }) },
    })
    expect(accepted({ extensions: { extendedKeyUsage: null } })).toBe(id)
    expect(accepted(purposes([clientAuth, serverAuth], true))).toBe(id)
    expect(accepted(purposes([clientAuth, '1.3.6.1.5.5.7.3.3', serverAuth]))).toBe(id)
    const message = 'an extended key usage without both serverAuth and clientAuth'
    for (const ids of [[serverAuth], [clientAuth], [], ['2.5.29.37.0']]) {
      expectLeafRefused(purposes(ids), message)
    }
  })

  it('X5-18 the validator refuses cA, keyCertSign and cRLSign, each alone', () => {
    expectLeafRefused(
      { extensions: { basicConstraints: basicConstraints(0) } },
      'a CA certificate, which never authenticates',
    )
    expectLeafRefused(usage(digitalSignature, keyCertSign), 'a key usage with keyCertSign')
    expectLeafRefused(usage(digitalSignature, cRLSign), 'a key usage with cRLSign')
  })

  it('X5-19 the validator refuses other schemes and IDs that are none', () => {
    const others = ['https://example.org/a', 'SPIFFE://example.org/a', 'spiffe://Example.org/a']
    for (const other of [...others, `${id}?`, `${id}#`, `${id}/../a`, `${id}\0`, '']) {
      expectLeafRefused({ id: other }, 'a URI name that is no SPIFFE ID')
    }
  })

  it('ID-22 the ID is inside of what is signed', () => {
    const [own = Buffer.alloc(0), ...rest] = leaf(intermediate)
    const at = own.indexOf('workload')
    const forged = Buffer.from(own)
    forged.write('W0rkload', at, 'latin1')
    expect(at).toBeGreaterThan(0)
    expectRefused([forged, ...rest], 'spiffe://example.org/W0rkload: a wrong signature')
  })

  it('ID-23 what is no X.509 certificate is no X509-SVID', () => {
    const jwt = Buffer.from('eyJhbGciOiJFUzI1NiJ9.e30.c2ln')
    const refusal = refusalOf(() => verify([jwt]))
    expect(refusal?.code).toBe('ERR_UNTRUSTED')
    expect(refusal?.message).toMatch(/^unreadable certificate: malformed certificate: /)
    expectRefused([], 'no certificate')
  })

  it('ID-24 only the ID speaks: other facts in the certificate change nothing', () => {
    const fields = { subject: distinguishedName(['2.5.4.3', 'admin']) }
    const chain = leaf(intermediate, fields)
    expect(verify(chain).id).toBe(id)
    expect(leafIdOf(parseCertificate(chain[0] ?? Buffer.alloc(0)))).toBe(id)
  })
})

describe('signing certificates', () => {
  it('X5-6 with an ID that has no path, or without one', () => {
    expect(accepted({})).toBe(id)
    const nameless = ca('nameless', { parent: root })
    expect(verify(leaf(nameless)).id).toBe(id)
  })

  it('X5-7 of the trust domain whose leaves they issue', () => {
    const { path } = verify(leaf(intermediate))
    const [, ...authorities] = path.map((it) => it.names)
    const name = { kind: 'uri', value: 'spiffe://example.org' }
    expect(authorities).toEqual([[name], [name]])
  })

  it('X5-8 may sign further ones, of any trust domain; the bundle decides', () => {
    const below = ca('below', { parent: intermediate, extensions: ownId('example.com') })
    expect(verify(leaf(below)).path).toHaveLength(4)
    expectRefused(
      leaf(below, { id: 'spiffe://example.com/a' }),
      'spiffe://example.com/a: no path to a root of the bundle',
    )
  })

  it('X5-10 have cA set', () => {
    const none = ca('none', { parent: root, extensions: { basicConstraints: noAuthority() } })
    expectRefused(leaf(none), `${id}: issuer 1: signed by a certificate that is no CA`)
  })

  it('X5-11 may carry URI name constraints, which are evaluated', () => {
    const constrained = (host: string) =>
      leaf(
        ca('constrained', {
          parent: root,
          extensions: { nameConstraints: nameConstraints({ permitted: [uri(host)] }) },
        }),
      )
    expect(verify(constrained('example.org')).id).toBe(id)
    const message = `${id}: a uri name that is not permitted under name constraints`
    expectRefused(constrained('example.com'), message)
  })

  it('X5-13 have keyCertSign set', () => {
    const lacking = ca('lacking', { parent: root, extensions: { keyUsage: keyUsage([cRLSign]) } })
    const message = `${id}: issuer 1: signed by a CA whose key usage lacks keyCertSign`
    expectRefused(leaf(lacking), message)
    const only = ca('only', { parent: root, extensions: { keyUsage: keyUsage([keyCertSign]) } })
    expect(verify(leaf(only)).id).toBe(id)
  })

  it('X5-16 whose extended key usage excludes TLS do not sign SVIDs', () => {
    const extensions = { extendedKeyUsage: extendedKeyUsage([serverAuth]) }
    const message = `${id}: issuer 1: signed by a CA whose extended key usage excludes TLS`
    expectRefused(leaf(ca('a', { parent: root, extensions })), message)
  })
})

describe('the path of an SVID', () => {
  it('X5-17 is validated by RFC 5280, and given from leaf to root', () => {
    const svid = verify(leaf(intermediate))
    expect(svid.path[0]).toBe(svid.leaf)
    expect(svid.path.map(({ isCa }) => isCa)).toEqual([false, true, true])
    expectRefused(
      leaf(intermediate, { notAfter: now - 1000 }),
      `${id}: expired at ${new Date(now - 1000).toISOString()}`,
    )
    expectRefused(leaf(intermediate).slice(0, 1), `${id}: no path to a root of the bundle`)
  })

  it("X5-20 ends in the bundle of the leaf's own trust domain and in no other", () => {
    const message = `${id}: no path to a root of the bundle`
    expectRefused(leaf(foreignRoot), message)
    expectRefused([...leaf(foreignRoot), foreignRoot.certificate], message)
    expect(String(verify(leaf(foreignRoot, { id: 'spiffe://example.com/a' })).id)).toBe(
      'spiffe://example.com/a',
    )
    expectRefused(
      leaf(root, { id: 'spiffe://example.com/a' }),
      'spiffe://example.com/a: no path to a root of the bundle',
    )
    expectRefused(
      leaf(root, { id: 'spiffe://example.net/a' }),
      'trust domain example.net is not trusted here',
    )
  })

  it('X5-20 X5-24 TB-7 an empty bundle trusts nobody', () => {
    const empty = bundleSourceOf(bundleOf(ours, []))
    expect(refusalOf(() => verifySvid(leaf(root), empty, { now }))).toEqual({
      code: 'ERR_UNTRUSTED',
      message: `${id}: no path to a root of the bundle`,
    })
  })

  it('is of the peer that was asked for', () => {
    const match = matchId(parseSpiffeId('spiffe://example.org/other'))
    expect(refusalOf(() => verifySvid(leaf(root), bundles, { now, match }))).toEqual({
      code: 'ERR_UNTRUSTED',
      message: `the peer is ${id}, expected spiffe://example.org/other`,
    })
    const { leaf: own } = verifySvid(leaf(root), bundles, {
      now,
      match: matchId(parseSpiffeId(id)),
    })
    expect(own.isCa).toBe(false)
  })

  it('is bounded: of a longer chain no more than ten certificates are read', () => {
    const [own = Buffer.alloc(0)] = leaf(root)
    const chain = [own, ...Array.from({ length: 9 }, () => root.certificate), Buffer.of(0)]
    expectRefused(chain, `${id}: 9 intermediates (at most 8)`)
  })

  it('is refused with a root in the bundle that another domain trusts, too', () => {
    const shared = bundleSourceOf(bundleOf(theirs, [root.certificate]))
    expect(refusalOf(() => verifySvid(leaf(root), shared, { now }))).toEqual({
      code: 'ERR_UNTRUSTED',
      message: 'trust domain example.org is not trusted here',
    })
    const { chain } = issueDev(root, {
      id: 'spiffe://example.com/a',
      notBefore: now,
      notAfter: now,
    })
    expect(String(verifySvid(chain, shared, { now }).id)).toBe('spiffe://example.com/a')
  })
})

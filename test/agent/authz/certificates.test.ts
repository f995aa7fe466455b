// Which certificates are somebody at the decision socket, and which are refused although a proxy let them in
// (proxies.md §7.2, §9.3).
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { issueDev, makeDevCa } from '../../../certs-dev/authority.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  generalName,
  keyUsage,
  subjectAltName,
} from '../../../certs-dev/extensions.ts'
import { bundleOf } from '../../../spiffe/bundle.ts'
import { keyUsages } from '../../../spiffe/certificate.ts'
import { parseTrustDomain } from '../../../spiffe/id.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { clientAuth, serverAuth } from '../../../spiffe/svid.ts'
import { makeTestAuthority } from '../../support/mesh.ts'
import { policyText } from '../../support/policy-text.ts'
import { rpc } from './asking.ts'
import {
  bundleMessage,
  type Deciding,
  entryOf,
  escaped,
  payments,
  startDeciding,
  web,
} from './deciding.ts'

const hour = 3_600_000
const life = { notBefore: Date.now() - 60_000, notAfter: Date.now() + hour }
const old = { notBefore: Date.now() - 2 * hour, notAfter: Date.now() + 24 * hour }

/** decisions are counted in the agent's own time */
const patience = { timeout: 60_000 }
const authority = makeTestAuthority('example.org')
const partner = makeTestAuthority('partner.test')
const stranger = makeTestAuthority('stranger.test')
// without an intermediate: what Envoy sends is all that there is
const root = makeDevCa({ name: 'a second root', ...old })
const partnerRoot = makeDevCa({ name: 'a second root of the partner', ...old })
const partnerId = 'spiffe://partner.test/ns/shop/sa/web'

type Made = Parameters<typeof escaped>[0]
const leaf = (choices: Partial<Parameters<typeof issueDev>[1]> = {}, ca = root): Made =>
  issueDev(ca, { id: web, ...life, ...choices })
const names = (...uris: string[]) => ({
  subjectAltName: subjectAltName(uris.map(generalName.uri), { critical: true }),
})

let deciding: Deciding
beforeAll(async () => {
  deciding = await startDeciding()
  const own = bundleOf(parseTrustDomain('example.org'), [
    ...authority.bundle.authorities.map(({ der }) => der),
    root.certificate,
  ])
  const theirs = bundleOf(parseTrustDomain('partner.test'), [
    ...partner.bundle.authorities.map(({ der }) => der),
    partnerRoot.certificate,
  ])
  const { entry, labels } = entryOf(payments, { federatesWith: ['partner.test'] })
  const lonely = entryOf(payments, { name: 'lonely' })
  deciding.apply({
    snapshot: true,
    bundle: bundleMessage(own),
    federated: { bundles: [bundleMessage(theirs), bundleMessage(stranger.bundle)] },
    entries: [entry, lonely.entry],
    labels: [labels, lonely.labels],
  })
  deciding.putPolicies(1n, policyText(`[{ to: [{ operation: { paths: [/ok] } }] }]`))
})
afterAll(() => deciding[Symbol.asyncDispose]())

const statusOf = async (certificate: string) => {
  const { status, httpResponse } = await deciding.check(rpc('/ok', { certificate }))
  if (status?.code === 0) return 200
  return httpResponse.case === 'deniedResponse' ? httpResponse.value.status?.code : undefined
}

describe('a client certificate', () => {
  it.each<[string, Made]>([
    ['of the own trust domain', leaf()],
    ['of a federated one', leaf({ id: partnerId }, partnerRoot)],
    ['without any extended key usage', leaf({ extensions: { extendedKeyUsage: null } })],
  ])('%s is somebody', async (_, made) => expect(await statusOf(escaped(made))).toBe(200))

  it.each<[string, Made]>([
    ['a federated authority forges our identity', leaf({}, partnerRoot)],
    ['an authority that this workload does not know', stranger.issue('spiffe://stranger.test/x')],
    ['two URI names', leaf({ extensions: names(web, payments) })],
    [
      'two URI names, the first of the partner that signed it',
      leaf({ extensions: names(partnerId, web) }, partnerRoot),
    ],
    ['no URI name', leaf({ extensions: { subjectAltName: null } })],
    [
      'server purpose only',
      leaf({ extensions: { extendedKeyUsage: extendedKeyUsage([serverAuth]) } }),
    ],
    [
      'client purpose only',
      leaf({ extensions: { extendedKeyUsage: extendedKeyUsage([clientAuth]) } }),
    ],
    ['an authority', leaf({ extensions: { basicConstraints: basicConstraints() } })],
    [
      'may sign certificates',
      leaf({
        extensions: { keyUsage: keyUsage([keyUsages.digitalSignature, keyUsages.keyCertSign]) },
      }),
    ],
    ['expired', leaf({ notBefore: Date.now() - hour, notAfter: Date.now() - 1000 })],
    ['not valid yet', leaf({ notBefore: Date.now() + hour / 2 })],
    ['dots in the path', leaf({ id: 'spiffe://example.org/ns/../sa/web' })],
    ['no path', leaf({ id: 'spiffe://example.org' })],
    ['another scheme', leaf({ id: 'https://example.org/ns/shop/sa/web' })],
    ['under an intermediate that nobody here knows', partner.issue(partnerId)],
  ])('%s: refused', async (_, made) => expect(await statusOf(escaped(made))).toBe(403))

  it.each([
    ['no PEM', 'nonsense'],
    ['a broken escape', '%E0%A4%A'],
    [
      'another kind of PEM',
      encodeURIComponent('-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n'),
    ],
    [
      'no DER',
      encodeURIComponent('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'),
    ],
    ['too much of it', 'A'.repeat(100_000)],
  ])('unreadable, %s: refused', async (_, text) => expect(await statusOf(text)).toBe(403))

  it('under an intermediate of an SVID of this node is somebody, once there is such an SVID', async () => {
    const svid = escaped(authority.issue(web))
    expect(await statusOf(svid)).toBe(403)
    deciding.putSvid(authority.issue(payments))
    expect(await statusOf(svid)).toBe(200)
  })

  it('with its intermediates is somebody', async () => {
    const { chain } = partner.issue(partnerId)
    const all = chain.map((der) => escaped({ chain: [der] })).join('')
    expect(await statusOf(all)).toBe(200)
  })

  it('of a trust domain is refused where the workload does not federate with it', async () => {
    const svid = escaped(leaf({ id: partnerId }, partnerRoot))
    expect(await statusOf(svid)).toBe(200)
    deciding.become('lonely')
    expect(await statusOf(svid)).toBe(403)
    deciding.become('envoy')
  })

  it('is refused as soon as the deny-list names it, its serial or its authority, and not longer', async () => {
    const svid = authority.issue(web)
    const deny = (...rules: object[]) =>
      deciding.apply({ revocation: { denyList: { rules }, crls: [] } })
    expect(await statusOf(escaped(svid))).toBe(200)
    deny({ id: '1', target: { case: 'spiffeId', value: web } })
    expect(await statusOf(escaped(svid))).toBe(403)
    deny({ id: '2', target: { case: 'serial', value: svid.serial } })
    expect(await statusOf(escaped(svid))).toBe(403)
    expect(await statusOf(escaped(authority.issue(web)))).toBe(200)
    const [parent] = authority.bundle.authorities
    const authorityId = keyIdOf(parent?.publicKey ?? new Uint8Array()).toString('hex')
    deny({ id: '3', target: { case: 'authorityId', value: authorityId } })
    expect(await statusOf(escaped(authority.issue(web)))).toBe(403)
    deny()
    expect(await statusOf(escaped(svid))).toBe(200)
  })

  it('is refused once the bundle does not have its root any more', async () => {
    const svid = escaped(leaf())
    expect(await statusOf(svid)).toBe(200)
    deciding.apply({ bundle: bundleMessage(authority.bundle) })
    expect(await statusOf(svid)).toBe(403)
  })

  it('what is refused is counted and logged with its reason, at this node alone', async () => {
    await expect
      .poll(
        () => deciding.ledger.flows().filter(({ destination }) => destination === payments),
        patience,
      )
      .toContainEqual(expect.objectContaining({ outcome: 4, source: '' }))
    const reasons = deciding.lines.map(({ reason }) => reason)
    expect(reasons).toContainEqual(expect.stringMatching('2 URI names instead of exactly one'))
  })
})

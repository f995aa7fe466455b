// What a decision does beside yes and no: rate limits, tokens, external authorizers, counts and their report.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createProxyLedger } from '../../../agent/proxies/ledger.ts'
import { policiesInUse } from '../../../agent/sidecar/in-use.ts'
import { Outcome } from '../../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { CheckResponse } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { makeTestAuthority } from '../../support/mesh.ts'
import { policyText } from '../../support/policy-text.ts'
import { createTestIssuer } from '../../support/token-issuer.ts'
import { type Asked, rpc } from './asking.ts'
import {
  bundleMessage,
  type Deciding,
  entryOf,
  escaped,
  payments,
  startDeciding,
  web,
} from './deciding.ts'

/** decisions are counted in the agent's own time */
const patience = { timeout: 60_000 }
const authority = makeTestAuthority('example.org')
const certificate = escaped(authority.issue(web))
const other = escaped(authority.issue('spiffe://example.org/ns/shop/sa/other'))
const all = policyText('[{}]', { name: 'all' })

let deciding: Deciding
beforeEach(async () => {
  deciding = await startDeciding({ config: { decisionLog: { allowed: 1 } } })
  const { entry, labels } = entryOf(payments, { labels: { app: 'payments' } })
  const bundle = bundleMessage(authority.bundle)
  deciding.apply({ snapshot: true, bundle, entries: [entry], labels: [labels] })
  deciding.putSvid(authority.issue(payments))
})
afterEach(() => deciding[Symbol.asyncDispose]())

const ask = (path: string, more: Asked = {}) => deciding.check(rpc(path, { certificate, ...more }))

function stopped({ httpResponse }: CheckResponse) {
  if (httpResponse.case !== 'deniedResponse') return httpResponse.case
  const { status, headers, body } = httpResponse.value
  return [status?.code, headers.map(({ header }) => `${header?.key}: ${header?.value}`), body]
}

const document = (kind: string, spec: string, api = 'castellan.dev/v1') => `apiVersion: ${api}
kind: ${kind}
metadata: { name: it, namespace: shop }
spec: ${spec}
`

describe('beside yes and no', () => {
  it('who asks too often is told when to come again, each caller by itself', async () => {
    const limit = document('RateLimit', '{ limits: [{ requests: 2, per: 60s }] }')
    deciding.putPolicies(1n, `${all}---\n${limit}`)
    for (let i = 0; i < 2; i++) expect((await ask('/')).status?.code).toBe(0)
    const third = await ask('/')
    expect(stopped(third)).toEqual([429, ['retry-after: 30'], 'too many requests\n'])
    expect(third.dynamicMetadata).toMatchObject({ outcome: 'limited', policy: 'shop/it' })
    expect((await ask('/', { certificate: other })).status?.code).toBe(0)
  })

  it('a token that does not hold is 401; one that holds is read, put in place of what was sent, and taken off', async () => {
    const issuer = await createTestIssuer('https://issuer.example', { alg: 'ES256' })
    const stranger = await createTestIssuer('https://issuer.example', { alg: 'ES256' })
    const rule = `{ issuer: "${issuer.issuer}", jwks: '${issuer.jwks}', outputClaimToHeaders: [{ header: x-sub, claim: sub }] }`
    const tokens = document(
      'RequestAuthentication',
      `{ jwtRules: [${rule}] }`,
      'security.istio.io/v1',
    )
    const demand = policyText(`[{ from: [{ source: { requestPrincipals: ['*'] } }] }]`)
    deciding.putPolicies(1n, `${tokens}---\n${demand}`)
    const withToken = (token: string) =>
      ask('/', { headers: { authorization: `Bearer ${token}`, 'x-sub': 'root' } })
    expect(stopped(await ask('/'))).toEqual([403, [], 'access denied\n'])
    const [status, fields] = stopped(await withToken(await stranger.token())) ?? []
    expect([status, fields]).toEqual([401, ['www-authenticate: Bearer error="invalid_token"']])
    const { httpResponse } = await withToken(await issuer.token())
    const sub = 'system:serviceaccount:shop:cart'
    expect(httpResponse).toMatchObject({
      case: 'okResponse',
      value: {
        headers: [
          { header: { key: 'x-sub', value: sub }, appendAction: 2 },
          { header: { key: 'x-spiffe-peer-id', value: web }, appendAction: 2 },
        ],
        headersToRemove: ['authorization'],
      },
    })
    expect(JSON.stringify(deciding.lines)).not.toContain('Bearer')
  })

  it('a token in the query is taken off, too', async () => {
    const issuer = await createTestIssuer('https://issuer.example', { alg: 'ES256' })
    const rule = `{ issuer: "${issuer.issuer}", jwks: '${issuer.jwks}', fromParams: [token] }`
    const tokens = document(
      'RequestAuthentication',
      `{ jwtRules: [${rule}] }`,
      'security.istio.io/v1',
    )
    deciding.putPolicies(1n, `${tokens}---\n${all}`)
    const { httpResponse } = await ask(`/?a=1&token=${await issuer.token()}`)
    expect(httpResponse).toMatchObject({ value: { queryParametersToRemove: ['token'] } })
  })

  it('a CUSTOM policy denies: nobody is here whom it could ask. That is said once', async () => {
    const custom = document(
      'AuthorizationPolicy',
      `{ action: CUSTOM, provider: { name: opa }, rules: [{ to: [{ operation: { paths: [/asked] } }] }] }`,
      'security.istio.io/v1',
    )
    deciding.putPolicies(1n, `${all}---\n${custom}`)
    for (let i = 0; i < 3; i++)
      expect(stopped(await ask('/asked'))).toEqual([403, [], 'access denied\n'])
    expect((await ask('/else')).status?.code).toBe(0)
    expect(deciding.lines.filter(({ provider }) => provider === 'opa')).toHaveLength(1)
  })

  it('labels of the entry decide', async () => {
    const rules = 'rules: [{}]'
    const of = (app: string) =>
      document(
        'AuthorizationPolicy',
        `{ selector: { matchLabels: { app: ${app} } }, ${rules} }`,
        'security.istio.io/v1',
      )
    deciding.putPolicies(1n, of('other'))
    expect((await ask('/')).status?.code).toBe(7)
    deciding.putPolicies(2n, of('payments'))
    expect((await ask('/')).status?.code).toBe(0)
  })

  async function behindProxies(): Promise<void> {
    await deciding[Symbol.asyncDispose]()
    const config = { trustedProxies: ['10.0.0.0/8'], trustedHops: 1 }
    deciding = await startDeciding({ config })
    const { entry, labels } = entryOf(payments)
    deciding.apply({
      snapshot: true,
      bundle: bundleMessage(authority.bundle),
      entries: [entry],
      labels: [labels],
    })
    deciding.putPolicies(
      1n,
      policyText(`[{ from: [{ source: { remoteIpBlocks: [192.0.2.7] } }] }]`),
    )
  }

  const from = async (address: string, forwarded: string, extensions = {}) =>
    (
      await deciding.check(
        rpc('/', { from: address, headers: { 'x-forwarded-for': forwarded }, extensions }),
      )
    ).status?.code

  it('forwarded addresses count when the peer is a trusted proxy', async () => {
    await behindProxies()
    expect(await from('10.1.1.1', '198.51.100.1,192.0.2.7')).toBe(0)
    expect(await from('10.1.1.1', '192.0.2.7,198.51.100.1')).toBe(7)
    expect(await from('198.51.100.9', '192.0.2.7')).toBe(7)
    expect(await from('192.0.2.7', '')).toBe(0)
  })

  it('what the listener has put behind them is not one of them', async () => {
    await behindProxies()
    const appended = { 'castellan.forwarded-for': 'appended' }
    expect(await from('10.1.1.1', '198.51.100.1, 192.0.2.7,10.1.1.1', appended)).toBe(0)
    expect(await from('10.1.1.1', '192.0.2.7,198.51.100.1,10.1.1.1', appended)).toBe(7)
    expect(await from('10.1.1.1', '10.1.1.1', appended)).toBe(7)
    expect(await from('192.0.2.7', '192.0.2.7', appended)).toBe(0)
    // as Envoy says it of a client on its own machine
    expect(await from('10.1.1.1', '192.0.2.7,172.17.0.2', appended)).toBe(0)
  })

  it('a listener that says something else of them lets nobody pass', async () => {
    await behindProxies()
    expect(await from('192.0.2.7', '192.0.2.7', { 'castellan.forwarded-for': 'perhaps' })).toBe(7)
    expect(deciding.lines.map(({ reason }) => reason)).toContainEqual(
      expect.stringContaining('is not "appended"'),
    )
  })
})

describe('the node', () => {
  it('counts who called whom, and keeps denials with their reason and remedy', async () => {
    deciding.putPolicies(1n, policyText('[{ to: [{ operation: { paths: [/ok] } }] }]'))
    await ask('/ok')
    await ask('/secret?token=abc')
    await expect
      .poll(() => deciding.ledger.own, patience)
      .toMatchObject({ allowed: 1n, denied: 1n, policies: 1n, refusal: '' })
    expect(deciding.ledger.flows()).toEqual([
      expect.objectContaining({
        source: web,
        destination: payments,
        outcome: Outcome.ALLOWED,
        policy: 'shop/test',
      }),
      expect.objectContaining({
        source: web,
        destination: payments,
        outcome: Outcome.DENIED,
        policy: '',
      }),
    ])
    const [denial] = deciding.ledger.denials()
    expect(denial).toMatchObject({
      source: web,
      destination: payments,
      port: 8443,
      method: 'GET',
      path: '/secret',
    })
    expect(denial?.remedy).toContain('add "/secret"')
    const decisions = deciding.lines.filter(({ msg }) => msg === 'decision')
    expect(decisions.map(({ outcome }) => outcome)).toEqual(['allowed', 'denied'])
    expect(JSON.stringify(decisions)).not.toContain('abc')
  })

  it('uses policies once they are in force: a set that cannot be used leaves the former one, and says why', async () => {
    const knowledge = { policies: () => undefined, onChange: () => ({ [Symbol.dispose]() {} }) }
    const proxies = createProxyLedger()
    const inUse = () => policiesInUse(knowledge, { ledger: deciding.ledger, proxies }).points()
    expect(inUse()).toEqual([{ version: 0n, refusal: '' }])
    deciding.putPolicies(1n, all)
    expect(inUse()).toEqual([{ version: 1n, refusal: '' }])
    deciding.putPolicies(2n, 'kind: Nonsense\n')
    expect(inUse()).toEqual([{ version: 1n, refusal: expect.stringMatching('test.yaml:1') }])
    expect((await ask('/')).status?.code).toBe(0)
    deciding.apply({
      revocation: {
        denyList: { rules: [{ id: '1', target: { case: 'spiffeId', value: web } }] },
        crls: [],
      },
    })
    expect((await ask('/')).status?.code).toBe(7)
  })
})

// Envoy's ext_authz at the decision socket: what passes, what does not, and what the workload is told.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CheckResponse } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { denialOf } from '../../support/ca-client.ts'
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

const authority = makeTestAuthority('example.org')
const webSvid = authority.issue(web)
const other = 'spiffe://example.org/ns/shop/sa/other'
const admin = 'spiffe://example.org/ns/admin/sa/panel'

const policies = [
  policyText(
    `[{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }], to: [{ operation: { paths: [/ok, /ok/*] } }] }]`,
    { name: 'web' },
  ),
  policyText(`[{ to: [{ operation: { paths: [/ok/secret] } }] }]`, {
    name: 'secret',
    action: 'DENY',
  }),
  policyText(`[{ to: [{ operation: { ports: ['9090'], paths: [/metrics] } }] }]`, {
    name: 'ports',
  }),
  policyText(`[{ to: [{ operation: { paths: [/open] } }] }]`, { name: 'open' }),
  policyText(`[{ to: [{ operation: { paths: [/panel] } }] }]`, {
    name: 'panel',
    namespace: 'admin',
  }),
].join('---\n')

let deciding: Deciding
beforeAll(async () => {
  deciding = await startDeciding()
})
afterAll(() => deciding[Symbol.asyncDispose]())

const ask = (path: string, more: Parameters<typeof rpc>[1] = {}) =>
  deciding.check(rpc(path, { certificate: escaped(webSvid), ...more }))

function denial({ httpResponse, status }: CheckResponse) {
  if (httpResponse.case !== 'deniedResponse') return { case: httpResponse.case }
  const { status: http, body, headers } = httpResponse.value
  return {
    code: status?.code,
    http: http?.code,
    body,
    headers: headers.map(({ header }) => [header?.key, header?.value]),
  }
}

const forbidden = { code: 7, http: 403, body: 'access denied\n', headers: [] }

describe('ext_authz', () => {
  it('answers nothing before the agent has heard from its authority', async () => {
    expect(await denialOf(ask('/ok'))).toMatchObject({ code: 'Unavailable' })
  })

  it('denies everything to who has no identity, and before the first policies', async () => {
    deciding.apply({ snapshot: true, bundle: bundleMessage(authority.bundle) })
    expect(denial(await ask('/ok'))).toEqual(forbidden)
    const [one, two] = [entryOf(payments), entryOf(admin)]
    deciding.apply({ entries: [one.entry, two.entry], labels: [one.labels, two.labels] })
    deciding.putSvid(authority.issue(payments))
    expect(denial(await ask('/ok'))).toEqual(forbidden)
  })

  it('allows what a policy allows: the workload is told who asks, and whatever said so before is gone', async () => {
    deciding.putPolicies(1n, policies)
    const { status, httpResponse, dynamicMetadata } = await ask('/ok?x=1', {
      headers: { 'x-spiffe-peer-id': admin },
    })
    expect(status?.code).toBe(0)
    expect(httpResponse).toMatchObject({
      case: 'okResponse',
      value: {
        headers: [{ header: { key: 'x-spiffe-peer-id', value: web }, appendAction: 2 }],
        headersToRemove: [],
      },
    })
    expect(dynamicMetadata).toEqual({
      outcome: 'allowed',
      policy: 'shop/web',
      rule: 0,
      source: web,
    })
  })

  it('denies without a word about the policy; only the node is told', async () => {
    const answer = await ask('/ok/secret')
    expect(denial(answer)).toEqual(forbidden)
    expect(answer.dynamicMetadata).toEqual({
      ...{ outcome: 'denied', policy: 'shop/secret', rule: 0, source: web },
    })
    expect((await ask('/never')).dynamicMetadata).toEqual({ outcome: 'denied', source: web })
  })

  it('who shows no certificate is nobody, whatever Envoy says, and its identity header is taken off', async () => {
    const answer = await deciding.check(rpc('/open', { claims: web }))
    expect(answer.httpResponse).toMatchObject({
      case: 'okResponse',
      value: { headers: [], headersToRemove: ['x-spiffe-peer-id'] },
    })
    expect(denial(await deciding.check(rpc('/ok', { claims: web })))).toEqual(forbidden)
  })

  it('the destination is the process: of several identities the one it names, never a foreign one', async () => {
    expect((await ask('/panel', { principal: admin })).status?.code).toBe(0)
    expect(denial(await ask('/panel', { principal: payments }))).toEqual(forbidden)
    expect(denial(await ask('/ok', { principal: other }))).toEqual(forbidden)
    expect(deciding.lines).toContainEqual(
      expect.objectContaining({ wants: other, msg: expect.stringMatching('not its own') }),
    )
    deciding.become('stranger')
    expect(denial(await ask('/ok'))).toEqual(forbidden)
    deciding.become('envoy')
    expect((await ask('/ok')).status?.code).toBe(0)
  })

  it('attests a connection once, not with each question', async () => {
    const before = deciding.attested()
    for (let i = 0; i < 20; i++) await ask('/ok')
    expect(deciding.attested() - before).toBeLessThanOrEqual(1)
  })

  it('ports are those of the listener, as its configuration says, or of the connection', async () => {
    const at = async (more: Parameters<typeof rpc>[1]) => (await ask('/metrics', more)).status?.code
    expect(await at({ port: 9090 })).toBe(0)
    expect(await at({ port: 15006 })).toBe(7)
    expect(await at({ port: 15006, extensions: { 'castellan.port': '9090' } })).toBe(0)
    expect(await at({ port: 9090, extensions: { 'castellan.port': '8080' } })).toBe(7)
  })

  it('how the workload reads paths decides too', async () => {
    const path = '/ok;x/secret'
    expect((await ask('/ok/x;y')).status?.code).toBe(0)
    const extensions = { 'castellan.backend': 'servlet' }
    expect(denial(await ask('/ok/secret;a', { extensions }))).toEqual(forbidden)
    expect(denial(await ask(path, { extensions }))).toEqual(forbidden)
    expect((await ask('/ok/secret;a')).status?.code).toBe(0)
  })

  it('the identity header may have another name; then neither of the two is believed', async () => {
    const extensions = { 'castellan.identity-header': 'x-caller' }
    const { httpResponse } = await ask('/ok', { extensions, headers: { 'x-caller': 'root' } })
    expect(httpResponse).toMatchObject({
      value: {
        headers: [{ header: { key: 'x-caller', value: web } }],
        headersToRemove: ['x-spiffe-peer-id'],
      },
    })
  })

  it.each([
    ['castellan.port', 'http'],
    ['castellan.port', '70000'],
    ['castellan.backend', 'iis'],
    ['castellan.identity-header', 'x-envoy-peer'],
  ])('settings that say nothing are refused, not guessed: %s %s', async (name, value) => {
    const answer = denial(await ask('/ok', { extensions: { [name]: value } }))
    expect(answer).toMatchObject({ code: 7, http: 400, body: 'bad request\n' })
  })

  it.each(['/ok/%2561', '/a%00b', '/ok/..%5c..%252e', 'ok'])(
    'an ambiguous path is a bad request: %s',
    async (path) => {
      expect(denial(await ask(path))).toMatchObject({ code: 7, http: 400 })
    },
  )

  it('a header that no parser lets pass is a bad request', async () => {
    expect(denial(await ask('/ok', { headers: { 'x-a': 'b\r\nc: d' } }))).toMatchObject({
      http: 400,
    })
  })
})

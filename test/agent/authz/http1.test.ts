// The check over HTTP/1.1, as nginx and others ask it.
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeTestAuthority } from '../../support/mesh.ts'
import { policyText } from '../../support/policy-text.ts'
import { untilClosed } from '../../support/sidecar.ts'
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
const certificate = escaped(authority.issue(web))
const admin = 'spiffe://example.org/ns/admin/sa/panel'

const policies = [
  policyText(
    `[{ from: [{ source: { principals: [example.org/ns/shop/sa/web] } }], to: [{ operation: { paths: [/ok], methods: [GET], hosts: [shop] } }] }]`,
  ),
  policyText(`[{ to: [{ operation: { paths: [/open] } }] }]`, { name: 'open' }),
  policyText(`[{ to: [{ operation: { paths: [/panel] } }] }]`, {
    name: 'panel',
    namespace: 'admin',
  }),
  policyText(
    `[{ to: [{ operation: { paths: ['/headers'] } }], when: [{ key: 'request.headers[x-tenant]', values: [a] }] }]`,
    { name: 'headers' },
  ),
  `apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: slow, namespace: shop }
spec: { limits: [{ requests: 1, per: 60s, to: [{ operation: { methods: [PUT] } }] }] }
`,
  policyText(`[{ to: [{ operation: { methods: [PUT] } }] }]`, { name: 'put' }),
].join('---\n')

let deciding: Deciding
beforeAll(async () => {
  deciding = await startDeciding()
})
afterAll(() => deciding[Symbol.asyncDispose]())

const url = '/check?port=8080'
const facts = (uri: string, more: Readonly<Record<string, string>> = {}) => ({
  'x-castellan-method': 'GET',
  'x-castellan-uri': uri,
  'x-castellan-host': 'shop',
  'x-castellan-certificate': certificate,
  'x-castellan-source': '127.0.0.1',
  ...more,
})
const ask = (uri: string, more: Readonly<Record<string, string>> = {}, at = url) =>
  deciding.ask(at, facts(uri, more))

describe('the check over HTTP/1.1', () => {
  it('is 503 before the agent has heard from its authority', async () => {
    expect(await ask('/ok')).toMatchObject({ status: 503 })
    const [one, two] = [entryOf(payments), entryOf(admin)]
    deciding.apply({
      snapshot: true,
      bundle: bundleMessage(authority.bundle),
      entries: [one.entry, two.entry],
      labels: [one.labels, two.labels],
    })
    deciding.putSvid(authority.issue(payments))
    deciding.putPolicies(1n, policies)
  })

  it('200 with who asks and what has to be taken off, 403 without a word', async () => {
    const { status, headers, text } = await ask('/ok?x=1')
    expect([status, headers['x-spiffe-peer-id'], text]).toEqual([200, web, ''])
    expect(headers['x-castellan-drop']).toBe('')
    const denied = await ask('/secret')
    expect([denied.status, denied.text]).toEqual([403, 'access denied\n'])
    expect(denied.headers).not.toHaveProperty('x-spiffe-peer-id')
  })

  it('without a certificate nobody asks', async () => {
    const none = { 'x-castellan-certificate': 'none' }
    const { status, headers } = await ask('/open', none)
    expect([status, headers['x-castellan-drop']]).toEqual([200, 'x-spiffe-peer-id'])
    expect(headers).not.toHaveProperty('x-spiffe-peer-id')
    expect((await ask('/ok', none)).status).toBe(403)
    expect((await ask('/ok', { 'x-castellan-certificate': 'x' })).status).toBe(403)
  })

  it('method, host and other fields are those of the request', async () => {
    expect((await ask('/ok', { 'x-castellan-method': 'POST' })).status).toBe(403)
    expect((await ask('/ok', { 'x-castellan-host': 'other' })).status).toBe(403)
    expect((await ask('/headers', { 'x-tenant': 'a' })).status).toBe(200)
    expect((await ask('/headers', { 'x-tenant': 'b' })).status).toBe(403)
  })

  it('too many are 429, an ambiguous path is 400', async () => {
    const put = { 'x-castellan-method': 'PUT' }
    expect((await ask('/x', put)).status).toBe(200)
    const { status, headers } = await ask('/x', put)
    expect([status, headers['retry-after']]).toEqual([429, '60'])
    expect((await ask('/ok/%2561')).status).toBe(400)
  })

  it('settings come with the address, which no client can change', async () => {
    const principal = encodeURIComponent(admin)
    expect((await ask('/panel', {}, `${url}&principal=${principal}`)).status).toBe(200)
    expect((await ask('/panel', {}, url)).status).toBe(403)
    const foreign = encodeURIComponent('spiffe://example.org/ns/shop/sa/other')
    expect((await ask('/ok', {}, `${url}&principal=${foreign}`)).status).toBe(403)
    const { headers } = await ask('/ok', {}, `${url}&identity-header=x-caller`)
    expect([headers['x-caller'], headers['x-castellan-drop']]).toEqual([web, 'x-spiffe-peer-id'])
  })

  it.each([
    'x-castellan-method',
    'x-castellan-uri',
    'x-castellan-host',
    'x-castellan-certificate',
    'x-castellan-source',
  ])('a fact that a proxy forgets could be a lie of its client: %s', async (name) => {
    const { [name]: _, ...others } = facts('/ok') as Record<string, string>
    const { status, text } = await deciding.ask(url, others)
    expect([status, text]).toEqual([400, expect.stringContaining(name)])
  })

  it('what is not understood is refused with its name', async () => {
    expect(await ask('/ok', { 'x-castellan-port': '1' })).toMatchObject({ status: 400 })
    expect(await ask('/ok', {}, '/check')).toMatchObject({
      status: 400,
      text: expect.stringMatching('port'),
    })
    expect(await ask('/ok', {}, `${url}&port=1`)).toMatchObject({ status: 400 })
    expect(await ask('/ok', {}, `${url}&other=1`)).toMatchObject({ status: 400 })
    expect(await ask('/ok', {}, '/other')).toMatchObject({ status: 404 })
    const twice = await raw(`${lines(url, facts('/ok'))}X-Castellan-Uri: /open\r\n\r\n`)
    expect(twice).toMatch(/^HTTP\/1.1 400 .*x-castellan-uri: is said twice/s)
  })

  it('several questions go over one connection, one of them in two pieces', async () => {
    const socket = connect(deciding.path)
    await once(socket, 'connect')
    const answers = untilClosed(socket)
    socket.write('G')
    await new Promise((resolve) => setImmediate(resolve))
    socket.write(`${lines(url, facts('/ok')).slice(1)}\r\n`)
    socket.write(`${lines(url, facts('/never'))}\r\n`)
    socket.write(`${lines(url, facts('/open'))}Connection: close\r\n\r\n`)
    const statuses = [...(await answers).matchAll(/^HTTP\/1.1 (\d+)/gm)].map(([, status]) => status)
    expect(statuses).toEqual(['200', '403', '200'])
  })
})

const lines = (at: string, fields: Readonly<Record<string, string>>) =>
  `GET ${at} HTTP/1.1\r\nHost: castellan\r\n${Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}`

async function raw(text: string): Promise<string> {
  const socket = connect(deciding.path)
  await once(socket, 'connect')
  const answer = untilClosed(socket)
  socket.end(text)
  return answer
}

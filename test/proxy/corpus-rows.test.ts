// Rows of the corpus that are no single evaluation (other.md), on live connections.
import { once } from 'node:events'
import type { ClientHttp2Session } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { connect } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { OwnSvid } from '../../client/x509-source.ts'
import type { MeshState } from '../../decisions/mesh.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createDenyList } from '../../spiffe/deny-list.ts'
import {
  contextFor,
  createTestSource,
  makeTestAuthority,
  stateOf,
  type TestSource,
} from '../support/mesh.ts'
import { policyText } from '../support/policy-text.ts'
import {
  authority,
  dialPayments,
  inboundTo,
  openSession,
  payments,
  server,
  web,
  webSvid,
} from '../support/shop.ts'
import {
  type App,
  peerOptions,
  type Sidecar,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const far = 'spiffe://far.example/ns/shop/sa/web'
const hour = 3_600_000
const federated = makeTestAuthority('far.example')
const ownSvid = authority.issue(payments, { notAfter: Date.now() + 10 * hour })
const both = contextFor(ownSvid, authority.bundle, federated.bundle)
const open = stateOf('[{}]')

let app: App
let source: TestSource
let sidecar: Sidecar
let offset = 0
/** raw header fields of what reached the workload */
let seen: string[][] = []

beforeAll(async () => {
  app = await startApp(({ rawHeaders }, response) => {
    seen.push(rawHeaders)
    response.end('from the workload')
  })
  source = createTestSource(both)
  // live connections are not looked at because time passes: what is decided is decided when they ask
  sidecar = await startSidecar(
    { inbound: [inboundTo(app.port)] },
    {
      ...{ source, state: open, limits: { recheck: 100 * hour } },
      clock: { ...systemClock, now: () => Date.now() + offset },
    },
  )
})
afterAll(async () => {
  for (const it of [sidecar, app]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
})
afterEach(() => {
  offset = 0
  source.put(both)
  sidecar.mesh.put(open)
})

const dialAs = (its: OwnSvid) => dialPayments(sidecar.port, its, { ALPNProtocols: ['http/1.1'] })

const get = (...lines: readonly string[]) =>
  ['GET / HTTP/1.1', 'Host: shop', ...lines, '', ''].join('\r\n')

/** By HTTP/1.1, the connection closed behind it. */
async function ask(lines: readonly string[] = []): Promise<string> {
  const socket = await dialAs(webSvid)
  const answer = untilClosed(socket)
  socket.write(get('Connection: close', ...lines))
  return (await answer).slice(0, 'HTTP/1.1 200'.length)
}

/** By HTTP/2; 0 for a stream that ended without an answer. */
async function statusOf(
  on: ClientHttp2Session,
  headers: Readonly<Record<string, string>> = {},
): Promise<number> {
  const stream = on.request({ ':path': '/', ':authority': 'shop', ...headers })
  const answered = Promise.withResolvers<number>()
  stream.on('error', () => {})
  stream.once('response', ({ ':status': status = 0 }) => answered.resolve(status))
  stream.once('close', () => answered.resolve(0))
  stream.resume()
  return await answered.promise
}

const namesSeen = () =>
  seen.map((raw) => raw.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase()))
const valuesOf = (name: string) =>
  seen.flatMap((raw) => raw.flatMap((it, i) => (it.toLowerCase() === name ? [raw[i + 1]] : [])))

describe('what only a proxy may say', () => {
  const forged = {
    'x-envoy-original-path': '/admin',
    'X-Envoy-Internal': 'true',
    'x-spiffe-peer-id': 'spiffe://td.example/ns/shop/sa/admin',
  }
  const lines = Object.entries(forged).map(([name, value]) => `${name}: ${value}`)

  it('row 95: is removed before the decision', async () => {
    for (const [name, value] of Object.entries(forged)) {
      const when = `[{ when: [{ key: "request.headers[${name}]", values: ["${value}"] }] }]`
      sidecar.mesh.put(stateOf(when))
      expect(await ask(lines), name).toBe('HTTP/1.1 403')
      const client = await openSession(sidecar.port)
      expect(await statusOf(client, forged), name).toBe(403)
      client.destroy()
    }
    expect(seen).toEqual([])
  })

  it('row 95: is not forwarded, by HTTP/1.1 or HTTP/2', async () => {
    expect(await ask([...lines, 'x_spiffe_peer_id: a', 'x-stays: yes'])).toBe('HTTP/1.1 200')
    const client = await openSession(sidecar.port)
    expect(await statusOf(client, { ...forged, 'x-stays': 'yes' })).toBe(200)
    client.destroy()
    const kept = ['host', 'x-stays', 'x-spiffe-peer-id', 'connection']
    expect(namesSeen()).toEqual([kept, kept])
  })

  it('row 96: x-forwarded-client-cert is removed; who calls is told from the certificate', async () => {
    const claim = { 'x-forwarded-client-cert': 'URI=spiffe://td.example/ns/shop/sa/admin' }
    expect(await ask(Object.entries(claim).map((it) => it.join(': ')))).toBe('HTTP/1.1 200')
    const client = await openSession(sidecar.port)
    expect(await statusOf(client, claim)).toBe(200)
    client.destroy()
    expect(valuesOf('x-forwarded-client-cert')).toEqual([])
    expect(valuesOf('x-spiffe-peer-id')).toEqual([web, web])
  })
})

describe('row 110: a connection whose certificate expired a second ago', () => {
  const brief = () => authority.issue(web, { notAfter: Date.now() + hour })

  it('is closed when it asks again by HTTP/1.1', async () => {
    const socket = await dialAs(brief())
    const closed = untilClosed(socket)
    socket.write(get())
    await once(socket, 'data')
    expect(seen.length).toBe(1)
    offset = hour + 1000
    socket.write(get())
    expect((await closed).match(/HTTP\/1\.1/g)).toHaveLength(1)
    expect(seen.length).toBe(1)
  })

  it('is closed when it asks again by HTTP/2', async () => {
    const client = await openSession(sidecar.port, brief())
    expect(await statusOf(client)).toBe(200)
    const closed = once(client, 'close')
    offset = hour + 1000
    expect(await statusOf(client)).toBe(0)
    await closed
    expect(seen.length).toBe(1)
  })
})

describe('row 111: a session of before is no way in', () => {
  /** The latest session of a connection on which a request was answered. */
  async function ticketOf(its: OwnSvid): Promise<Buffer | undefined> {
    const socket = await dialAs(its)
    const sessions = [socket.getSession()]
    socket.on('session', (one) => sessions.push(one))
    const answer = untilClosed(socket)
    socket.write(get('Connection: close'))
    expect(await answer).toMatch(/^HTTP\/1\.1 200/)
    return sessions.findLast((one) => one !== undefined)
  }

  async function comeBack(its: OwnSvid, ticket: Buffer | undefined): Promise<string> {
    const resumed = ticket === undefined ? {} : { session: ticket }
    const socket = connect({ ...peerOptions(sidecar.port, its, server), ...resumed })
    const answer = untilClosed(socket)
    socket.write(get('Connection: close'))
    return await answer
  }

  it('after a bundle lost its root', async () => {
    const its = federated.issue(far)
    const ticket = await ticketOf(its)
    source.put(contextFor(ownSvid, authority.bundle))
    expect(await comeBack(its, ticket)).toBe('')
    expect(seen.length).toBe(1)
    source.put(both)
    expect(await comeBack(its, ticket)).toMatch(/^HTTP\/1\.1 200/)
  })

  it('after its certificate was put on the deny-list', async () => {
    const its = authority.issue(web)
    const ticket = await ticketOf(its)
    const target = { kind: 'serial', serial: its.serial } as const
    const rule = { id: '', target, reason: 'a drill', expiresAt: 0 }
    sidecar.mesh.put({ ...open, denyList: createDenyList([rule]) })
    expect(await comeBack(its, ticket)).toBe('')
    expect(seen.length).toBe(1)
    expect(sidecar.lines.join('')).toContain('a drill')
  })
})

describe('row 135: a key that slipped past the reader', () => {
  /** As a document whose `when` key another version knew would be. */
  function slipped(action: 'ALLOW' | 'DENY', list: 'values' | 'notValues'): MeshState {
    const known = `[{ when: [{ key: source.principal, ${list}: [td.example/ns/x/sa/y] }] }]`
    const rest = action === 'DENY' ? [policyText('[{}]', { name: 'rest' })] : []
    const text = [policyText(known, { action }), ...rest].join('---\n')
    const documents = readPolicies([{ name: 'f.yaml', text }])
    const policies = documents.policies.map((it) => ({
      ...it,
      rules: it.rules.map((rule) => ({
        ...rule,
        ...(rule.when === undefined
          ? {}
          : { when: rule.when.map((one) => ({ ...one, key: 'source.weather' })) }),
      })),
    }))
    return { ...open, policies: compile({ ...documents, policies }) }
  }

  it.each([
    ['DENY', 'values'],
    ['DENY', 'notValues'],
    ['ALLOW', 'values'],
    ['ALLOW', 'notValues'],
  ] as const)('%s of %s: nobody is let through', async (action, list) => {
    sidecar.mesh.put(slipped(action, list))
    expect(await ask()).toBe('HTTP/1.1 403')
    expect(seen).toEqual([])
  })
})

describe('row 140: plaintext where mutual TLS is spoken', () => {
  // nothing, or an alert of TLS (content type 21)
  const silence = ['', '\u0015']

  /** The first byte of what comes back until the connection is closed. */
  async function plainly(port: number, bytes: string): Promise<string> {
    const socket = connectTcp(port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write(bytes)
    return (await answer).slice(0, 1)
  }

  it.each([
    ['HTTP/1.1', get()],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ])('is closed without an answer of HTTP: %s', async (_, bytes) => {
    expect(silence).toContain(await plainly(sidecar.port, bytes))
    expect(seen).toEqual([])
  })

  it('is closed without an answer on a TCP listener, too', async () => {
    await using tcp = await startSidecar(
      { inbound: [inboundTo(app.port, { protocol: 'tcp' })] },
      { source, state: open },
    )
    expect(silence).toContain(await plainly(tcp.port, get()))
    expect(seen).toEqual([])
  })
})

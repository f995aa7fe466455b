// Listeners that take plaintext, beside mutual TLS or instead of it: nobody is who they say in the clear.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../runtime/clock.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { ask, openCaller } from '../support/local-call.ts'
import { makeTestAuthority, stateOf, stateUnder } from '../support/mesh.ts'
import { policyText } from '../support/policy-text.ts'
import {
  askPayments,
  dialPayments,
  inboundTo,
  payments,
  server,
  sourceOf,
  web,
  webSvid,
} from '../support/shop.ts'
import {
  type App,
  listening,
  peerOptions,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const source = sourceOf(payments)
const forWeb = stateOf('[{ from: [{ source: { principals: ["td.example/ns/shop/sa/web"] } }] }]')
const forAll = stateOf('[{}]')

let app: App
let echo: App
let seen: Record<string, unknown>[] = []
beforeAll(async () => {
  app = await startApp((message, response) => {
    seen.push(message.headers)
    if (message.url !== '/held') message.pipe(response)
  })
  echo = await listening(
    createServer((socket) => {
      socket.write('welcome;')
      socket.pipe(socket)
    }),
  )
})
afterAll(async () => {
  for (const it of [app, echo]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
})

const start = (
  mtls: string,
  state = forAll,
  { port = app.port, protocol = 'http', clock = systemClock, more = {} } = {},
) => {
  const inbound = [inboundTo(port, { protocol, mtls, ...more })]
  return startSidecar({ inbound }, { source, state, clock })
}
const bytes = () => ({ port: echo.port, protocol: 'tcp' })

const overTls = (port: number, text: string, protocols?: string[]) =>
  askPayments(port, text, webSvid, protocols && { ALPNProtocols: protocols })

const get = 'GET /ok HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'

describe('mtls: permissive', () => {
  it('takes mutual TLS and plaintext on one port, and tells only the former by name', async () => {
    await using sidecar = await start('permissive')
    expect(await overTls(sidecar.port, get)).toMatch(/^HTTP\/1.1 200/)
    const claims = { 'x-spiffe-peer-id': web }
    expect(await ask(sidecar.port, { method: 'POST', body: 'hi', headers: claims })).toMatchObject({
      ...{ status: 200, body: 'hi' },
    })
    using caller = openCaller(sidecar.port)
    const { headers } = await caller.call({ 'content-type': 'text/plain', ...claims })
    expect(headers[':status']).toBe(200)
    expect(seen.map((it) => it['x-spiffe-peer-id'])).toEqual([web, undefined, undefined])
  })

  it('is no way around principals: in the clear there are none', async () => {
    await using sidecar = await start('permissive', forWeb)
    expect(await overTls(sidecar.port, get)).toMatch(/^HTTP\/1.1 200/)
    expect((await ask(sidecar.port)).status).toBe(403)
    expect(sidecar.tally.take()).toMatchObject({ allowed: 1, denied: 1 })
  })

  it('yields to a PeerAuthentication that says STRICT', async () => {
    const strict = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec: { mtls: { mode: STRICT } }
`
    await using sidecar = await start('permissive', stateUnder(strict, policyText('[{}]')))
    expect(await overTls(sidecar.port, get)).toMatch(/^HTTP\/1.1 200/)
    expect((await ask(sidecar.port)).status).toBe(403)
  })

  it('still takes no stranger and no one without certificate over TLS', async () => {
    await using sidecar = await start('permissive')
    const stranger = makeTestAuthority('stranger.example').issue('spiffe://stranger.example/x')
    for (const svid of [stranger, undefined]) {
      const socket = connectTls(peerOptions(sidecar.port, svid, server))
      const answer = untilClosed(socket)
      socket.write(get)
      expect(await answer).toBe('')
    }
    expect(seen).toEqual([])
  })

  it('carries bytes of both kinds, once the client has spoken', async () => {
    await using sidecar = await start('permissive', forAll, bytes())
    expect(sidecar.connections.size).toBe(0)
    const socket = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(socket)
    const large = 'x'.repeat(3_000_000)
    socket.end(large)
    expect((await answer) === `welcome;${large}`).toBe(true)
    const secret = await dialPayments(sidecar.port)
    const secretly = untilClosed(secret)
    secret.end('hello')
    expect(await secretly).toBe('welcome;hello')
  })

  it('takes a handshake that comes byte by byte', async () => {
    await using sidecar = await start('permissive')
    const tcp = connect({ host: '127.0.0.1', port: sidecar.port, noDelay: true })
    await using relay = await listening(
      createServer((socket) => {
        socket.once('data', async (first: Buffer) => {
          for (const byte of first.subarray(0, 8)) {
            tcp.write(Buffer.of(byte))
            await new Promise((resolve) => setImmediate(resolve))
          }
          tcp.write(first.subarray(8))
          socket.pipe(tcp)
        })
        tcp.pipe(socket)
      }),
    )
    expect(await overTls(relay.port, get)).toMatch(/^HTTP\/1.1 200/)
  })

  it('ends who says nothing, by the limit of handshakes, and who leaves before', async () => {
    const clock = createFakeClock(Date.now())
    await using sidecar = await startSidecar(
      { inbound: [inboundTo(echo.port, { protocol: 'tcp', mtls: 'permissive' })] },
      { source, state: forAll, clock, limits: { handshake: 1000, recheck: 100 } },
    )
    const accepted = once(connect(sidecar.port, '127.0.0.1').end(), 'close')
    await accepted
    const socket = connect(sidecar.port, '127.0.0.1')
    const closed = untilClosed(socket)
    await once(socket, 'connect')
    // it has connected for us; the sidecar accepts it in its own time
    const ended = expect.poll(() => clock.advance(1000).then(() => socket.destroyed), {
      timeout: 20_000,
    })
    await ended.toBe(true)
    expect(await closed).toBe('')
  })

  it('decides again about what is under way in the clear when policies change', async () => {
    await using sidecar = await start('permissive', forAll, bytes())
    const socket = connect(sidecar.port, '127.0.0.1')
    const closed = untilClosed(socket)
    socket.write('hello')
    await once(socket, 'data')
    expect(sidecar.connections.size).toBe(1)
    sidecar.mesh.put(forAll)
    expect(sidecar.connections.size).toBe(1)
    sidecar.mesh.put(forWeb)
    expect(await closed).toMatch(/^welcome/)

    await using http = await start('permissive')
    const kept = connect(http.port, '127.0.0.1')
    const over = untilClosed(kept)
    kept.write('GET /held HTTP/1.1\r\nHost: shop\r\n\r\n')
    await expect.poll(() => seen.length, { timeout: 20_000 }).toBe(1)
    http.mesh.put(forWeb)
    expect(await over).toBe('')
  })

  it('ends connections in the clear when there is no identity to decide by', async () => {
    const its = sourceOf(payments)
    await using sidecar = await startSidecar(
      { inbound: [inboundTo(echo.port, { protocol: 'tcp', mtls: 'permissive' })] },
      { source: its, state: forAll },
    )
    const socket = connect(sidecar.port, '127.0.0.1')
    const closed = untilClosed(socket)
    socket.write('hello')
    await once(socket, 'data')
    its.put(undefined)
    expect(await closed).toMatch(/^welcome/)
  })
})

describe('mtls: off', () => {
  it('takes plaintext only', async () => {
    await using sidecar = await start('off')
    expect((await ask(sidecar.port)).status).toBe(200)
    const socket = connectTls(peerOptions(sidecar.port, webSvid, server))
    expect(await untilClosed(socket)).toBe('')
    expect(sidecar.lines.join('')).toContain('TLS, where mtls is off')
  })

  it('lets a server speak first', async () => {
    await using sidecar = await start('off', forAll, bytes())
    const socket: Socket = connect(sidecar.port, '127.0.0.1')
    const [first] = await once(socket, 'data')
    expect(String(first)).toBe('welcome;')
    socket.destroy()
  })

  it('ends a connection of the age that the spec names, and of no other', async () => {
    const clock = createFakeClock(Date.now())
    const its = { ...bytes(), clock, more: { maxConnectionAge: '2s' } }
    await using sidecar = await start('off', forAll, its)
    const socket = connect(sidecar.port, '127.0.0.1')
    const closed = untilClosed(socket)
    await once(socket, 'data')
    await clock.advance(1900)
    expect(sidecar.connections.size).toBe(1)
    await clock.advance(200)
    expect(await closed).toBe('welcome;')
  })
})

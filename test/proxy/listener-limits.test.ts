// The limits of one inbound listener take the place of what holds for all others.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { constants } from 'node:http2'
import { connect, createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask, openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import { dialPayments, inboundTo, openSession, payments, sourceOf } from '../support/shop.ts'
import { type App, listening, startApp, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(payments)
const patient = { timeout: 20_000 }

let app: App
let bytes: App
const held: ServerResponse[] = []
beforeAll(async () => {
  app = await startApp((message, response) => {
    if (message.url === '/held') held.push(response)
    else if (message.url === '/begun') response.write('so far')
    else response.end('well')
  })
  app.server.on('upgrade', (_, socket) =>
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
    ),
  )
  bytes = await listening(createServer((socket) => void socket.write('welcome')))
})
afterAll(async () => {
  for (const it of [app, bytes]) await it[Symbol.asyncDispose]()
})

/** The first listener has these limits, the second one those of all. */
const start = (limits: object, { port = app.port, protocol = 'http', mtls = 'off' } = {}) => {
  const listener = inboundTo(port, { protocol, mtls })
  const inbound = [{ ...listener, limits }, listener]
  return startSidecar({ inbound }, { source, state: stateOf('[{}]') })
}

async function both(limits: object, asked: object) {
  await using sidecar = await start(limits)
  const answers = sidecar.listeners.map(async ({ port }) => (await ask(port, asked)).status)
  return await Promise.all(answers)
}

describe('limits of an inbound listener', () => {
  it('of the bytes of a header', async () => {
    const headers = { 'x-long': 'x'.repeat(2000) }
    expect(await both({ headerBytes: 1024 }, { headers })).toEqual([431, 200])
    await using sidecar = await start({ headerBytes: 1024 })
    using caller = openCaller(sidecar.port)
    const called = await caller.call({ ...headers, 'content-type': 'text/plain' })
    expect(called.headers[':status']).toBe(431)
  })

  it('of the number of fields', async () => {
    const headers = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`x-${i}`, 'a']))
    expect(await both({ headers: 8 }, { headers })).toEqual([431, 200])
  })

  it('of streams', async () => {
    await using sidecar = await start({ streams: 3 })
    for (const [i, expected] of [3, 100].entries()) {
      using caller = openCaller(sidecar.listeners[i]?.port ?? 0)
      const [settings] = await once(caller.session, 'remoteSettings')
      expect(settings.maxConcurrentStreams).toBe(expected)
    }
  })

  it('of connections', async () => {
    await using sidecar = await start({ connections: 1 }, { port: bytes.port, protocol: 'tcp' })
    const [one, ...others] = [0, 0, 1, 1].map((i) =>
      connect(sidecar.listeners[i]?.port ?? 0, '127.0.0.1').on('error', () => {}),
    )
    if (one === undefined) throw new Error('no socket')
    await once(one, 'data')
    const [refused, ...welcome] = others
    if (refused === undefined) throw new Error('no socket')
    expect(await untilClosed(refused)).toBe('')
    for (const socket of welcome) await once(socket, 'data')
    for (const socket of [one, ...welcome]) socket.destroy()
  })

  it('of the time until the fields have come', async () => {
    await using sidecar = await start({ requestHeaders: '50ms' })
    const socket = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n')
    expect(await answer).toMatch(/^HTTP\/1.1 408/)
  })

  it('of a connection without a request', async () => {
    await using sidecar = await start({ idle: '300ms' })
    const socket = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    expect(await answer).toMatch(/well/)
    using caller = openCaller(sidecar.port)
    const closed = once(caller.session, 'close')
    expect((await caller.call({ 'content-type': 'text/plain' })).body).toBe('well')
    await closed
  })

  it('of an answer that has begun, and of no other', async () => {
    await using sidecar = await start({ idle: '300ms' })
    const begun = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(begun)
    begun.write('GET /begun HTTP/1.1\r\nHost: a\r\n\r\n')
    expect(await answer).toMatch(/so far/)
    using caller = openCaller(sidecar.port)
    const plain = { 'content-type': 'text/plain' }
    const called = await caller.call({ ...plain, ':path': '/begun' })
    expect([called.body, called.rstCode]).toEqual(['so far', constants.NGHTTP2_INTERNAL_ERROR])

    const waiting = ask(sidecar.port, { path: '/held' })
    await expect.poll(() => held.length, patient).toBe(1)
    // another answer is given up meanwhile, so that time has passed for this one
    using another = openCaller(sidecar.port)
    await another.call({ ...plain, ':path': '/begun' })
    held[0]?.end('at last')
    expect((await waiting).body).toBe('at last')
  })

  it('of a tunnel: a websocket, and bytes over TLS', async () => {
    await using sidecar = await start({ idle: '300ms' })
    const socket = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(socket)
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
    socket.write(`GET / HTTP/1.1\r\nHost: a\r\n${upgrade}`)
    expect(await answer).toMatch(/^HTTP\/1.1 101/)

    const its = { port: bytes.port, protocol: 'tcp', mtls: 'strict' }
    await using tunnels = await start({ idle: '300ms' }, its)
    const tls = await dialPayments(tunnels.port)
    expect(await untilClosed(tls)).toBe('welcome')
  })

  it('of HTTP/2 over mutual TLS as well', async () => {
    await using sidecar = await start({ streams: 2 }, { mtls: 'strict' })
    const session = await openSession(sidecar.port)
    const [settings] = await once(session, 'remoteSettings')
    expect(settings.maxConcurrentStreams).toBe(2)
    session.destroy()
  })
})

import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask, openCaller } from '../support/local-call.ts'
import { contextFor, createTestSource, stateOf } from '../support/mesh.ts'
import { authority, inboundTo, outboundTo, payments, sourceOf, web } from '../support/shop.ts'
import {
  type App,
  listening,
  peerOptions,
  type Sidecar,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const webSource = sourceOf(web)
const paymentsSvid = authority.issue(payments)
const paymentsSource = createTestSource(contextFor(paymentsSvid, authority.bundle))

/** A peer that is no sidecar: TLS, and what a test says. */
async function startPeer(onConnection: (socket: TLSSocket) => void): Promise<App> {
  const { cert, key } = peerOptions(0, paymentsSvid, { authority, id: web })
  const ALPNProtocols = ['http/1.1']
  return await listening(createServer({ cert, key, ALPNProtocols }, onConnection))
}

async function sidecarTo(port: number, more: object = {}, limits: object = {}): Promise<Sidecar> {
  return await startSidecar(
    { outbound: [outboundTo(`127.0.0.1:${port}`, more)] },
    { source: webSource, state: stateOf('[]'), limits },
  )
}

let app: App
let seen: { line: string; peer: unknown }[] = []
let inbound: Sidecar
let outbound: Sidecar

beforeAll(async () => {
  app = await startApp((message, response) => {
    seen.push({
      line: `${message.method} ${message.url}`,
      peer: message.headers['x-spiffe-peer-id'],
    })
    message.pipe(response)
  })
  app.server.on('upgrade', (_: IncomingMessage, socket: Socket) => {
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
    )
    socket.pipe(socket)
  })
  inbound = await startSidecar(
    { inbound: [inboundTo(app.port)] },
    {
      source: paymentsSource,
      state: stateOf('[{ to: [{ operation: { paths: ["/ok*", "/shop.Echo/*"] } }] }]'),
    },
  )
  outbound = await sidecarTo(inbound.port)
})

afterAll(async () => {
  for (const it of [outbound, inbound, app]) await it[Symbol.asyncDispose]()
})

describe('outbound HTTP', () => {
  it('reaches the peer, and tells both sides whom they met', async () => {
    seen = []
    const { status, headers, body } = await ask(outbound.port, {
      method: 'POST',
      path: '/ok?q',
      body: 'hi',
    })
    expect([status, body]).toEqual([200, 'hi'])
    expect(headers['x-spiffe-peer-id']).toBe(payments)
    expect(seen).toEqual([{ line: 'POST /ok?q', peer: web }])
  })

  it('keeps connections to the peer', async () => {
    const agent = new Agent({ keepAlive: true })
    await ask(outbound.port, { agent })
    const before = outbound.connections.size
    for (let i = 0; i < 5; i++) expect((await ask(outbound.port, { agent })).status).toBe(200)
    expect(outbound.connections.size).toBe(before)
    agent.destroy()
  })

  it('passes a denial of the peer on', async () => {
    expect((await ask(outbound.port, { path: '/secret' })).status).toBe(403)
  })

  it('sends no byte to a peer that is not the expected, and says 502', async () => {
    let bytes = 0
    let connections = 0
    await using wrong = await startPeer((socket) => {
      socket.on('data', (part) => {
        bytes += part.length
      })
      socket.on('error', () => {})
    })
    wrong.server.on('connection', () => connections++)
    await using strict = await sidecarTo(wrong.port, { expect: [web] })
    const { status, headers } = await ask(strict.port, { method: 'POST', body: 'secret' })
    expect(status).toBe(502)
    expect(headers).not.toHaveProperty('x-spiffe-peer-id')
    expect([connections, bytes]).toEqual([1, 0])
    expect(strict.tally.failures).toBe(1)
  })

  it('replaces what the peer says of itself', async () => {
    await using forging = await startPeer((socket) => {
      const forged = 'x-spiffe-peer-id: spiffe://td.example/admin'
      socket.once('data', () =>
        socket.end(`HTTP/1.1 200 OK\r\n${forged}\r\ncontent-length: 0\r\n\r\n`),
      )
    })
    await using sidecar = await sidecarTo(forging.port)
    expect((await ask(sidecar.port)).headers['x-spiffe-peer-id']).toBe(payments)
  })

  it('asks again on a fresh connection when a kept one turns out to be closed', async () => {
    let connections = 0
    // each connection answers once; the second request on it is met with a reset
    await using forgetful = await startPeer((socket) => {
      connections++
      socket.on('error', () => {})
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
        socket.once('data', () => socket.destroy())
      })
    })
    await using sidecar = await sidecarTo(forgetful.port)
    for (let i = 0; i < 3; i++) expect((await ask(sidecar.port)).status).toBe(200)
    expect(sidecar.tally.failures).toBe(0)
    expect(connections).toBeGreaterThanOrEqual(3)
  })

  it('does not ask again what may not be repeated', async () => {
    await using forgetful = await startPeer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
        socket.once('data', () => socket.destroy())
      })
    })
    await using sidecar = await sidecarTo(forgetful.port)
    expect((await ask(sidecar.port)).status).toBe(200)
    expect((await ask(sidecar.port, { method: 'POST', body: 'pay' })).status).toBe(502)
  })

  it('does not ask again on a connection that was fresh', async () => {
    let connections = 0
    await using broken = await startPeer((socket) => {
      connections++
      socket.on('error', () => {})
      socket.once('data', () => socket.destroy())
    })
    await using sidecar = await sidecarTo(broken.port)
    expect((await ask(sidecar.port)).status).toBe(502)
    expect(connections).toBe(1)
  })

  it('knows services by the agent, and says 502 for others', async () => {
    await using sidecar = await sidecarTo(0, { destination: undefined, service: 'payments' })
    expect((await ask(sidecar.port)).status).toBe(502)
    sidecar.mesh.put(
      stateOf('[]', new Map([['payments', [{ host: '127.0.0.1', port: inbound.port }]]])),
    )
    expect((await ask(sidecar.port)).status).toBe(200)
  })

  it('is no forward proxy', async () => {
    const socket = connect(outbound.port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write('GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    expect(await answer).toMatch(/^HTTP\/1.1 400 /)
  })

  it('opens websockets', async () => {
    const socket = connect(outbound.port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write(
      'GET /ok HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    )
    await once(socket, 'data')
    socket.end('over and out')
    const text = await answer
    expect(text).toContain(`x-spiffe-peer-id: ${payments}`)
    expect(text).toMatch(/over and out$/)
  })

  it('says 502 without identity, and goes on when it is back', async () => {
    const context = webSource.current()
    webSource.put(undefined)
    expect((await ask(outbound.port)).status).toBe(502)
    await expect.poll(() => outbound.connections.size, { timeout: 20_000 }).toBe(0)
    webSource.put(context)
    expect((await ask(outbound.port)).status).toBe(200)
  })

  it('lets what is in flight finish at shutdown', async () => {
    const stopping = await sidecarTo(inbound.port, {}, { drain: 60_000 })
    const held = request({ host: '127.0.0.1', port: stopping.port, method: 'POST', path: '/ok' })
    held.write('first;')
    const [response]: [IncomingMessage] = await new Promise((resolve) =>
      held.once('response', (it) => resolve([it])),
    )
    const stopped = stopping[Symbol.asyncDispose]()
    held.end('last')
    let text = ''
    for await (const part of response) text += part
    expect(text).toBe('first;last')
    await stopped
  })
})

describe('outbound gRPC', () => {
  it('takes HTTP/2 with prior knowledge and carries trailers', async () => {
    const grpc = createHttp2Server()
    grpc.on('stream', (stream, headers) => {
      stream.respond({ 'x-caller': String(headers['x-spiffe-peer-id']) }, { waitForTrailers: true })
      stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      stream.pipe(stream)
    })
    await using grpcApp = await listening(grpc)
    await using callee = await startSidecar(
      { inbound: [inboundTo(grpcApp.port)] },
      { source: paymentsSource, state: stateOf('[{}]') },
    )
    await using caller = await sidecarTo(callee.port)
    using local = openCaller(caller.port)
    for (let i = 0; i < 2; i++) {
      const { headers, trailers, body } = await local.call()
      expect(headers).toMatchObject({ 'x-caller': web, 'x-spiffe-peer-id': payments })
      expect([body, trailers['grpc-status']]).toEqual(['message', '0'])
    }
    expect(caller.connections.size).toBe(1)
  })

  it('answers UNAVAILABLE when the peer is not the expected', async () => {
    await using caller = await sidecarTo(inbound.port, { expect: [web] })
    using local = openCaller(caller.port)
    const { headers } = await local.call()
    expect(headers).toMatchObject({ ':status': 200, 'grpc-status': '14' })
  })
})

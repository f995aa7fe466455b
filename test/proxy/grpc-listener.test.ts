// Listeners of gRPC: HTTP/2 and nothing else, on both sides and for every request.
import { once } from 'node:events'
import { createServer as createHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import {
  askPayments,
  inboundTo,
  openSession,
  outboundTo,
  payments,
  sourceOf,
  web,
  webSvid,
} from '../support/shop.ts'
import { type App, listening, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(payments)
const webSource = sourceOf(web)
const forAll = stateOf('[{}]')
const get = 'GET /ok HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'

let app: App
let seen: unknown[] = []
beforeAll(async () => {
  const workload = createHttp2()
  workload.on('stream', (stream, headers) => {
    seen.push([headers[':path'], headers['x-spiffe-peer-id'], headers.cookie, headers.te])
    stream.respond({ ':status': 201 })
    stream.end('by HTTP/2')
  })
  app = await listening(workload)
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(() => {
  seen = []
})

const start = (mtls: string, state = forAll, port = app.port) => {
  const inbound = [inboundTo(port, { protocol: 'grpc', mtls })]
  return startSidecar({ inbound }, { source, state })
}

const overTls = (port: number, protocols?: string[]) =>
  askPayments(port, get, webSvid, protocols && { ALPNProtocols: protocols })

describe('an inbound listener of gRPC', () => {
  it('goes on by HTTP/2 with every request, over TLS and in the clear', async () => {
    await using sidecar = await start('permissive')
    const session = await openSession(sidecar.port)
    const stream = session.request({ ':path': '/plain', cookie: 'a=b' })
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(201)
    session.destroy()
    using caller = openCaller(sidecar.port)
    const get = { ':method': 'GET', ':path': '/clear', 'content-type': 'text/plain' }
    const called = await caller.call(get, '')
    expect([called.headers[':status'], called.body]).toEqual([201, 'by HTTP/2'])
    expect((await caller.call({ ':path': '/grpc' })).headers[':status']).toBe(201)
    expect(seen).toEqual([
      ['/plain', web, 'a=b', undefined],
      ['/clear', undefined, undefined, undefined],
      ['/grpc', undefined, undefined, 'trailers'],
    ])
  })

  it('takes no HTTP/1.1, whoever brings it', async () => {
    await using sidecar = await start('permissive')
    const socket = connect(sidecar.port, '127.0.0.1')
    socket.write(get)
    expect(await untilClosed(socket)).toBe('')
    // without a protocol in the handshake HTTP/1.1 is meant
    expect(await overTls(sidecar.port)).toBe('')
    await expect(overTls(sidecar.port, ['http/1.1'])).rejects.toThrow()
    const lines = sidecar.lines.filter((it) => it.includes('HTTP/2 alone is spoken here'))
    expect(lines.length).toBe(2)
    expect(seen).toEqual([])
  })

  it('refuses by HTTP what is no gRPC, and by gRPC what is', async () => {
    const state = stateOf('[{ to: [{ operation: { paths: ["/a"] } }] }]')
    await using sidecar = await start('off', state, 1)
    using caller = openCaller(sidecar.port)
    const plain = { 'content-type': 'text/plain' }
    expect((await caller.call({ ...plain, ':path': '/b' })).headers[':status']).toBe(403)
    expect((await caller.call({ ...plain, ':path': '/a' })).headers[':status']).toBe(502)
    expect((await caller.call({ ':path': '/b' })).headers).toMatchObject({ 'grpc-status': '7' })
    expect((await caller.call({ ':path': '/a' })).headers).toMatchObject({ 'grpc-status': '14' })
  })
})

describe('an outbound listener of gRPC', () => {
  it('takes HTTP/2 alone and goes on by it', async () => {
    await using inbound = await start('strict')
    await using outbound = await startSidecar(
      { outbound: [outboundTo(`127.0.0.1:${inbound.port}`, { protocol: 'grpc' })] },
      { source: webSource, state: stateOf('[]') },
    )
    using caller = openCaller(outbound.port)
    const called = await caller.call({ ':path': '/a', 'content-type': 'text/plain' })
    expect(called.headers).toMatchObject({ ':status': 201, 'x-spiffe-peer-id': payments })
    expect(seen).toEqual([['/a', web, undefined, undefined]])
    const socket = connect(outbound.port, '127.0.0.1')
    socket.write(get)
    expect(await untilClosed(socket)).toBe('')
  })
})

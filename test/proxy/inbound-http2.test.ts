import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createServer as createHttp2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stateOf } from '../support/mesh.ts'
import { dialPayments, inboundTo, payments, sourceOf, web, webSvid } from '../support/shop.ts'
import { type App, listening, type Sidecar, startApp, startSidecar } from '../support/sidecar.ts'

const rules = `[{ from: [{ source: { principals: ["td.example/ns/shop/sa/web"] } }], to: [{ operation: { paths: ["/ok*", "/shop.Echo/*"] } }] }]`

let http1App: App
let grpcApp: App
let sidecar: Sidecar
let grpcSidecar: Sidecar
let session: ClientHttp2Session
let seen: { line: string; headers: readonly string[]; bytes: number }[] = []
let cancelled = Promise.withResolvers<number>()

/** A gRPC server as far as the wire goes: echoes messages as they come, then trailers. */
function echo(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  raw: readonly string[],
): void {
  seen.push({ line: `${headers[':method']} ${headers[':path']}`, headers: raw, bytes: 0 })
  stream.on('error', () => {})
  stream.once('close', () => cancelled.resolve(stream.rstCode))
  if (headers[':path'] === '/shop.Echo/Fail') {
    const fields = {
      'content-type': 'application/grpc',
      'grpc-status': '5',
      'grpc-message': 'no%20such',
    }
    stream.respond({ ':status': 200, ...fields }, { endStream: true })
    return
  }
  stream.respond({ 'content-type': 'application/grpc', 'x-from': 'app' }, { waitForTrailers: true })
  stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-last': 'yes' }))
  stream.pipe(stream)
}

beforeAll(async () => {
  http1App = await startApp(async (request, response) => {
    let bytes = 0
    for await (const part of request) bytes += part.length
    seen.push({ line: `${request.method} ${request.url}`, headers: request.rawHeaders, bytes })
    response.setHeader('set-cookie', ['a=1', 'b=2'])
    response.setHeader('connection', 'close, x-hop')
    response.setHeader('x-hop', 'no')
    response.end(request.method === 'HEAD' ? undefined : 'from the workload')
  })
  const grpc = createHttp2Server()
  grpc.on('stream', (stream, headers, _flags, raw) => echo(stream, headers, raw))
  grpcApp = await listening(grpc)
  const start = (port: number) =>
    startSidecar(
      { inbound: [inboundTo(port)] },
      {
        source: sourceOf(payments),
        state: stateOf(rules),
      },
    )
  sidecar = await start(http1App.port)
  grpcSidecar = await start(grpcApp.port)
})

afterAll(async () => {
  for (const it of [sidecar, grpcSidecar, http1App, grpcApp]) await it[Symbol.asyncDispose]()
})

async function open(port: number): Promise<ClientHttp2Session> {
  const socket = await dialPayments(port, webSvid, { ALPNProtocols: ['h2'] })
  const opened = connect('https://shop', {
    createConnection: () => socket,
    maxSessionMemory: 256,
  })
  opened.on('error', () => {})
  return opened
}

beforeEach(async () => {
  seen = []
  cancelled = Promise.withResolvers()
  session = await open(sidecar.port)
})

afterEach(() => session.destroy())

interface Answer {
  readonly headers: IncomingHttpHeaders
  readonly trailers: IncomingHttpHeaders
  readonly body: Buffer
}

async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  const parts: Buffer[] = []
  let headers: IncomingHttpHeaders = {}
  let trailers: IncomingHttpHeaders = {}
  stream.on('response', (its) => {
    headers = its
  })
  stream.on('trailers', (its) => {
    trailers = its
  })
  stream.on('data', (part) => parts.push(part))
  stream.on('error', () => {})
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
  return { headers, trailers, body: Buffer.concat(parts) }
}

async function ask(headers: OutgoingHttpHeaders, body?: Uint8Array): Promise<Answer> {
  const stream = session.request(headers, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  return await answerOf(stream)
}

describe('inbound HTTP/2', () => {
  it('goes on by HTTP/1.1, normalised, with cookies joined and claims stripped', async () => {
    const { headers, body } = await ask({
      ':path': '/x/../ok?a=b',
      ':authority': 'shop',
      cookie: ['a=1', 'b=2'],
      'x-forwarded-for': '10.0.0.1',
      'x-spiffe-peer-id': 'spiffe://td.example/admin',
      'x-stays': 'yes',
    })
    expect(headers[':status']).toBe(200)
    expect(headers['set-cookie']).toEqual(['a=1', 'b=2'])
    expect(headers).not.toHaveProperty('x-hop')
    expect(body.toString()).toBe('from the workload')
    expect(seen[0]?.line).toBe('GET /ok?a=b')
    expect(seen[0]?.headers.slice(0, -2)).toEqual([
      'host',
      'shop',
      'x-stays',
      'yes',
      'cookie',
      'a=1; b=2',
      'x-spiffe-peer-id',
      web,
    ])
  })

  it('denies with 403, also with an unread body, and serves on', async () => {
    const big = Buffer.alloc(1024 * 1024)
    const { headers, body } = await ask({ ':path': '/secret', ':method': 'POST' }, big)
    expect(headers[':status']).toBe(403)
    expect(body.toString()).toBe('access denied\n')
    expect((await ask({ ':path': '/ok' })).headers[':status']).toBe(200)
    expect(seen.map(({ line }) => line)).toEqual(['GET /ok'])
  })

  it('passes a body of 50 MB on', async () => {
    const size = 50 * 1024 * 1024
    const { headers } = await ask({ ':path': '/ok', ':method': 'POST' }, Buffer.alloc(size))
    expect(headers[':status']).toBe(200)
    expect(seen[0]?.bytes).toBe(size)
  })

  it('answers HEAD without body', async () => {
    const { headers, body } = await ask({ ':path': '/ok', ':method': 'HEAD' })
    expect(headers[':status']).toBe(200)
    expect(body.length).toBe(0)
  })

  it('refuses what can be read in two ways', async () => {
    const cases = [
      { ':path': '/ok', ':authority': 'shop', host: 'other' },
      { ':path': 'http://shop/ok' },
      { ':path': '/ok/%252e%252e/secret' },
      { ':path': '*', ':method': 'OPTIONS' },
    ]
    for (const headers of cases) {
      // what no HTTP/2 endpoint may send is reset, the rest is answered
      expect([400, undefined]).toContain((await ask(headers)).headers[':status'])
    }
    const many = Object.fromEntries(Array.from({ length: 102 }, (_, i) => [`x-${i}`, 'y']))
    expect([431, undefined]).toContain((await ask({ ':path': '/ok', ...many })).headers[':status'])
    expect(seen).toEqual([])
  })

  it('has no CONNECT', async () => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'shop:443' })
    stream.on('error', () => {})
    const { headers } = await answerOf(stream)
    expect(headers[':status']).toBe(400)
  })

  it('says 502 for gRPC to a workload that speaks no HTTP/2, as gRPC does', async () => {
    const { headers } = await ask(
      { ':path': '/shop.Echo/Call', ':method': 'POST', 'content-type': 'application/grpc' },
      Buffer.alloc(5),
    )
    expect(headers).toMatchObject({ ':status': 200, 'grpc-status': '14' })
  })

  it('bounds concurrent streams', async () => {
    // the settings come before any answer
    await ask({ ':path': '/ok' })
    expect(session.remoteSettings.maxConcurrentStreams).toBe(100)
  })
})

describe('inbound gRPC', () => {
  const call = (method: string) => ({
    ':path': `/shop.Echo/${method}`,
    ':method': 'POST',
    'content-type': 'application/grpc+proto',
    te: 'trailers',
    'grpc-timeout': '5S',
  })

  beforeEach(async () => {
    session.destroy()
    session = await open(grpcSidecar.port)
  })

  it('passes calls on with trailers, and tells who calls', async () => {
    const message = Buffer.from('\0\0\0\0\x03abc')
    const { headers, trailers, body } = await ask(call('Call'), message)
    expect(headers).toMatchObject({ ':status': 200, 'x-from': 'app' })
    expect(trailers).toMatchObject({ 'grpc-status': '0', 'x-last': 'yes' })
    expect(body).toEqual(message)
    const sent = seen[0]?.headers ?? []
    const valueOfField = (name: string) => sent[sent.indexOf(name) + 1]
    expect(valueOfField('x-spiffe-peer-id')).toBe(web)
    expect(valueOfField('te')).toBe('trailers')
    expect(valueOfField('grpc-timeout')).toBe('5S')
  })

  it('passes an error without messages on', async () => {
    const { headers } = await ask(call('Fail'), Buffer.alloc(5))
    expect(headers).toMatchObject({ 'grpc-status': '5', 'grpc-message': 'no%20such' })
  })

  it('denies as gRPC does: 200, trailers only, status 7', async () => {
    const headers = { ...call('Call'), ':path': '/shop.Admin/Call' }
    const answer = await ask(headers, Buffer.alloc(5))
    expect(answer.headers).toMatchObject({
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-status': '7',
      'grpc-message': 'access denied',
    })
    expect(answer.body.length).toBe(0)
    expect(seen).toEqual([])
  })

  it('streams both ways, message by message', async () => {
    const stream = session.request(call('Chat'))
    const answer = answerOf(stream)
    for (let i = 0; i < 200; i++) {
      stream.write(`message ${i};`)
      await once(stream, 'data')
    }
    stream.end()
    const { body, trailers } = await answer
    expect(body.toString().split(';').length).toBe(201)
    expect(trailers['grpc-status']).toBe('0')
  })

  it('passes 20 MB', async () => {
    const { body, trailers } = await ask(call('Call'), Buffer.alloc(20 * 1024 * 1024))
    expect(body.length).toBe(20 * 1024 * 1024)
    expect(trailers['grpc-status']).toBe('0')
  })

  it('passes a cancel on', async () => {
    const stream = session.request(call('Chat'))
    stream.on('error', () => {})
    stream.write('x')
    await once(stream, 'data')
    stream.close(constants.NGHTTP2_CANCEL)
    expect(await cancelled.promise).toBe(constants.NGHTTP2_CANCEL)
  })

  it('ends a stream that policies do not allow any more', async () => {
    const stream = session.request(call('Chat'))
    stream.on('error', () => {})
    stream.write('x')
    await once(stream, 'data')
    grpcSidecar.mesh.put(stateOf('[]'))
    await once(stream, 'close')
    expect(stream.rstCode).toBe(constants.NGHTTP2_CANCEL)
    grpcSidecar.mesh.put(stateOf(rules))
  })
})

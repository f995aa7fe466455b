import { once } from 'node:events'
import http2, { type ServerHttp2Session } from 'node:http2'
import { type AddressInfo, createServer } from 'node:net'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createHttp2Sessions, type Http2Sessions } from '../../client/http2-sessions.ts'
import { Health } from '../../proto/gen/grpc/health/v1/health_pb.js'

const patience = { timeout: 20_000, interval: 50 }
const portOf = (address: AddressInfo | string | null) =>
  typeof address === 'object' && address !== null ? address.port : 0

let server: http2.Http2Server
let seen: ServerHttp2Session[]
let sessions: Http2Sessions

beforeEach(async () => {
  seen = []
  server = http2.createServer()
  server.on('session', (session) => seen.push(session))
  server.on('stream', (stream) => {
    stream.respond({ ':status': 200 })
    stream.end('done')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  sessions = createHttp2Sessions(`http://127.0.0.1:${portOf(server.address())}`, {})
})
afterEach(() => {
  sessions[Symbol.dispose]()
  for (const session of seen) session.destroy()
  server.close()
})

async function ask(): Promise<string> {
  const stream = await sessions.request('GET', '/', {}, {})
  stream.end()
  let text = ''
  for await (const chunk of stream.setEncoding('utf8')) text += chunk
  return text
}

describe('a session', () => {
  it('is shared by requests, and opened again after it was closed', async () => {
    expect(await Promise.all([ask(), ask()])).toEqual(['done', 'done'])
    expect(seen).toHaveLength(1)
    const [first] = seen
    if (first === undefined) throw new Error('no session')
    first.close()
    await vi.waitFor(async () => expect(await ask()).toBe('done'), patience)
    await vi.waitFor(async () => {
      await ask()
      expect(seen).toHaveLength(2)
    }, patience)
  })

  it('survives a server that says goodbye twice while nothing is asked', async () => {
    await ask()
    const [first] = seen
    if (first === undefined) throw new Error('no session')
    first.goaway(http2.constants.NGHTTP2_NO_ERROR, 2 ** 31 - 1)
    first.goaway(http2.constants.NGHTTP2_NO_ERROR)
    await vi.waitFor(async () => {
      expect(await ask()).toBe('done')
      expect(seen.length).toBeGreaterThan(1)
    }, patience)
  })

  it('that was cut off is another one next time', async () => {
    await ask()
    const [first] = seen
    if (first === undefined) throw new Error('no session')
    first.destroy()
    await vi.waitFor(async () => expect(await ask()).toBe('done'), patience)
    expect(seen).toHaveLength(2)
  })

  it('that is disposed ends the calls that have no answer yet, at once', async () => {
    const asked = Promise.withResolvers<void>()
    server.removeAllListeners('stream')
    server.on('stream', () => asked.resolve())
    const baseUrl = sessions.authority
    const transport = createGrpcTransport({ baseUrl, sessionManager: sessions })
    const call = createClient(Health, transport).check({}).catch(ConnectError.from)
    await asked.promise
    sessions[Symbol.dispose]()
    expect(await call).toMatchObject({
      code: Code.Unavailable,
      rawMessage: 'the connection was closed',
    })
  })

  it.each<[string, (session: ServerHttp2Session) => void]>([
    ['refused whole', (session) => session.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM)],
    ['reset', (session) => session.socket?.resetAndDestroy?.()],
  ])('that is %s under a call is UNAVAILABLE to its caller', async (_, end) => {
    server.removeAllListeners('stream')
    const asked = Promise.withResolvers<void>()
    server.on('stream', (stream) => {
      stream.on('error', () => {})
      asked.resolve()
    })
    server.on('session', (session) => session.on('error', () => {}))
    const baseUrl = sessions.authority
    const transport = createGrpcTransport({ baseUrl, sessionManager: sessions })
    const call = createClient(Health, transport).check({}).catch(ConnectError.from)
    await asked.promise
    for (const session of seen) end(session)
    expect(await call).toMatchObject({ code: Code.Unavailable })
  })

  it('to where nobody listens says so, each time', async () => {
    const nobody = createServer()
    nobody.listen(0, '127.0.0.1')
    await once(nobody, 'listening')
    const port = portOf(nobody.address())
    nobody.close()
    using none = createHttp2Sessions(`http://127.0.0.1:${port}`, {})
    for (let i = 0; i < 2; i++) {
      await expect(none.request('GET', '/', {}, {})).rejects.toThrow('ECONNREFUSED')
    }
  })
})

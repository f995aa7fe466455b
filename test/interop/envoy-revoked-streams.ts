// What stays open: a backend that begins answers and never ends them, and callers that wait for their end.
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect as connectPlain, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import { toPem } from '../../spiffe/pem.ts'
import type { DrivenEnvoy } from '../support/driven-envoy.ts'
import type { Backend } from '../support/reached.ts'
import { inTime } from './eventually.ts'

const whole = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
const begun = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n'

async function serve(make: (take: (socket: Socket) => void) => Server): Promise<Backend> {
  const sockets = new Set<Socket>()
  const server = make((socket) => {
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.once('close', () => sockets.delete(socket))
    socket.on('data', (bytes: Buffer) => {
      socket.write(bytes.toString('latin1').startsWith('GET /ok ') ? whole : begun)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  return {
    port,
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Answers `/ok`, and begins to answer everything else, HTTP or not. */
export const startEndless = (): Promise<Backend> => serve((take) => createServer(take))

/** The same as a server with the identity of the client. */
export const startPeer = (it: DrivenEnvoy): Promise<Backend> =>
  serve((take) => {
    const { cert, key, ca } = identityOf(it)
    return createTlsServer({ cert, key, ca, requestCert: true, rejectUnauthorized: true }, take)
  })

export interface OpenStream extends Disposable {
  readonly what: string
  /** Resolves when it has ended, one way or the other. */
  readonly ended: Promise<void>
}

const identityOf = (it: DrivenEnvoy) => {
  const { chain, key } = it.svid()
  return {
    cert: chain.map((der) => toPem(der, 'CERTIFICATE')).join(''),
    key: key.export({ format: 'pem', type: 'pkcs8' }),
    ca: it.roots(),
    checkServerIdentity: () => undefined,
  }
}

const request = 'GET /stream HTTP/1.1\r\nhost: shop.example\r\n\r\n'

/** Resolves at the first byte; a stream that ends before it, or says nothing, is an error that names it. */
async function untilBegun(stream: Duplex, ended: Promise<void>, what: string): Promise<void> {
  const over = ended.then(() => {
    throw new Error(`${what} has ended before it began`)
  })
  over.catch(() => {})
  await inTime(`${what} begins`, Promise.race([once(stream, 'data'), over]))
}

async function openOn(socket: Socket, what: string): Promise<OpenStream> {
  socket.on('error', () => {})
  const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.write(request)
  await untilBegun(socket, ended, what)
  return { what, ended, [Symbol.dispose]: () => void socket.destroy() }
}

/** By HTTP/1.1, or as bytes of any kind, to the listener of the workload. */
export const openRaw = (it: DrivenEnvoy): Promise<OpenStream> =>
  openOn(
    connectTls({ host: '127.0.0.1', port: it.ports.inbound, ...identityOf(it) }),
    'a stream to the workload',
  )

/** As the workload itself, to those that it calls. */
export const openOutbound = (it: DrivenEnvoy): Promise<OpenStream> =>
  openOn(connectPlain({ host: '127.0.0.1', port: it.ports.outbound }), 'a stream of the workload')

/** A stream of HTTP/2, whose connection would live on. */
export async function openHttp2(it: DrivenEnvoy): Promise<OpenStream> {
  const session = connectHttp2(`https://127.0.0.1:${it.ports.inbound}`, identityOf(it))
  session.on('error', () => {})
  const stream = session.request({ ':path': '/stream', ':authority': 'shop.example' })
  stream.on('error', () => {})
  const ended = new Promise<void>((resolve) => stream.once('close', () => resolve()))
  const what = 'a stream of HTTP/2'
  await untilBegun(stream, ended, what)
  stream.resume()
  return { what, ended, [Symbol.dispose]: () => session.destroy() }
}

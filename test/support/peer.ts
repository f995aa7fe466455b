// A peer that is no sidecar: mutual TLS as one speaks it, and behind it what a test says.
import { createServer as createHttp1, type RequestListener } from 'node:http'
import { createServer as createHttp2, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import type { OwnSvid } from '../../client/x509-source.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { type App, listening } from './sidecar.ts'

export interface Peer extends App {
  readonly address: string
  /** of TCP, so far */
  readonly accepted: number
  /** of TLS, now */
  readonly open: number
}

export interface PeerOptions {
  readonly svid: OwnSvid
  /** of HTTP/1.1 */
  readonly onRequest?: RequestListener
  /** of HTTP/2 */
  readonly onStream?: (stream: ServerHttp2Stream) => void
  /** instead of any protocol */
  readonly onSocket?: (socket: TLSSocket) => void
}

function createFront({ onRequest = () => {}, onStream = () => {} }: PeerOptions) {
  const http1 = createHttp1({ keepAliveTimeout: 60_000 }, onRequest)
  const http2 = createHttp2()
  http2.on('sessionError', () => {})
  http2.on('stream', (stream) => {
    stream.on('error', () => {})
    onStream(stream)
  })
  return (socket: TLSSocket) =>
    void (socket.alpnProtocol === 'h2' ? http2 : http1).emit('connection', socket)
}

export async function startPeer(options: PeerOptions): Promise<Peer> {
  const { svid, onSocket = createFront(options) } = options
  const live = new Set<Socket>()
  let accepted = 0
  const server = createServer(
    {
      ...keyPairToPem(svid),
      ALPNProtocols: ['h2', 'http/1.1'],
    },
    (socket) => {
      live.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => live.delete(socket))
      onSocket(socket)
    },
  )
  server.on('connection', () => accepted++)
  const app = await listening(server)
  return {
    ...{ port: app.port, server, address: `127.0.0.1:${app.port}` },
    get accepted() {
      return accepted
    },
    get open() {
      return live.size
    },
    [Symbol.asyncDispose]: () => app[Symbol.asyncDispose](),
  }
}

// One agent's connection to an authority, cheap enough to have ten thousand: TLS and HTTP/2 of Node, gRPC by
// hand. The server's chain is verified; whose certificate it is, is not looked at.
import { once } from 'node:events'
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls, type SecureContext } from 'node:tls'
import { fromBinary } from '@bufbuild/protobuf'
import { anyUnpack, durationMs } from '@bufbuild/protobuf/wkt'
import { RetryInfoSchema } from '../../proto/gen/google/rpc/error_details_pb.js'
import { StatusSchema } from '../../proto/gen/google/rpc/status_pb.js'
import { createFrameReader, encodeFrame } from '../../runtime/grpc/frame.ts'

export interface Answer {
  /** of google.rpc.Code */
  readonly code: number
  readonly message: string
  readonly messages: readonly Uint8Array[]
  /** milliseconds that the server asks to wait before the next attempt */
  readonly retryAfter: number | undefined
}

export interface AgentConnection extends Disposable {
  /** One message out, whatever comes back; rejects when the connection breaks. */
  call(method: string, message: Uint8Array): Promise<Answer>
  /** A stream that stays open: `onMessage` for each that comes. */
  open(method: string, onMessage: (message: Uint8Array) => void): ClientHttp2Stream
}

const longestMessage = 4 * 1024 * 1024

function retryDelayOf(details: unknown): number | undefined {
  if (typeof details !== 'string') return undefined
  for (const detail of fromBinary(StatusSchema, Buffer.from(details, 'base64')).details) {
    const delay = anyUnpack(detail, RetryInfoSchema)?.retryDelay
    if (delay !== undefined) return durationMs(delay)
  }
  return undefined
}

const headersOf = (method: string) => ({
  ':method': 'POST',
  ':path': `/${method}`,
  'content-type': 'application/grpc',
  te: 'trailers',
})

function callOn(session: ClientHttp2Session, method: string, message: Uint8Array): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const stream = session.request(headersOf(method))
  const messages: Uint8Array[] = []
  const reader = createFrameReader(longestMessage, (it) => messages.push(it))
  let end: Readonly<Record<string, unknown>> = {}
  // an answer without messages has its status in the headers
  stream.on('response', (headers) => (end = headers))
  stream.on('trailers', (trailers) => (end = trailers))
  stream.on('data', (chunk: Buffer) => reader.push(chunk))
  stream.on('error', reject)
  stream.on('close', () => {
    const status = end['grpc-status']
    if (status === undefined) return reject(new Error(`${method}: no answer`))
    resolve({
      code: Number(status),
      message: String(end['grpc-message'] ?? ''),
      messages,
      retryAfter: retryDelayOf(end['grpc-status-details-bin']),
    })
  })
  stream.end(encodeFrame(message))
  return promise
}

/** `context` holds the roots, and the agent's certificate when it has one. */
export async function connectAgent(
  port: number,
  context: SecureContext,
  patience = 30_000,
): Promise<AgentConnection> {
  const tcp = connectTcp({ host: '127.0.0.1', port, noDelay: true })
  const socket = connectTls({
    socket: tcp,
    secureContext: context,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  })
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(patience) })
  } catch (error) {
    socket.on('error', () => {})
    socket.destroy()
    throw error
  }
  const session = http2.connect('https://127.0.0.1', { createConnection: () => socket })
  // whoever waits for a call is told by the call
  session.on('error', () => {})
  return {
    call: (method, message) => callOn(session, method, message),
    open(method, onMessage) {
      const stream = session.request(headersOf(method))
      const reader = createFrameReader(longestMessage, onMessage)
      stream.on('data', (chunk: Buffer) => reader.push(chunk))
      return stream
    },
    [Symbol.dispose]: () => session.destroy(),
  }
}

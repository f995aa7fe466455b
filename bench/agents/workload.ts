// A workload at an agent's socket, cheap enough to have a thousand: HTTP/2 of Node, gRPC by hand, one connection
// for each stream, as workloads have it.
import { once } from 'node:events'
import http2 from 'node:http2'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { createFrameReader, encodeFrame } from '../../runtime/grpc/frame.ts'

export interface WorkloadStream extends AsyncDisposable {
  /** why it has ended: a code of gRPC and its message */
  readonly ended: Promise<string>
}

export interface Subscription {
  readonly method: string
  /** the request, encoded */
  readonly message?: Uint8Array
  readonly onMessage: (message: Uint8Array) => void
}

export const fetchX509Svid = 'SpiffeWorkloadAPI/FetchX509SVID'

const longestMessage = 4 * 1024 * 1024
/** milliseconds between two looks for a socket that nobody serves yet */
const lookEvery = 2

/** Rejects with ENOENT, ECONNREFUSED. */
export async function connectTo(path: string): Promise<Socket> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/** A connection as soon as somebody serves the socket. */
export async function connectSoon(path: string, signal: AbortSignal): Promise<Socket> {
  for (;;) {
    signal.throwIfAborted()
    try {
      return await connectTo(path)
    } catch {
      await delay(lookEvery, undefined, { signal })
    }
  }
}

/** Asks over `socket`, which is closed when the stream is disposed. */
export function subscribe(
  socket: Socket,
  { method, message = new Uint8Array(), onMessage }: Subscription,
): WorkloadStream {
  const session = http2.connect('http://localhost', { createConnection: () => socket })
  // whoever waits hears of it by the stream
  session.on('error', () => {})
  const { promise: ended, resolve } = Promise.withResolvers<string>()
  const reader = createFrameReader(longestMessage, onMessage)
  const stream = session.request({
    ':method': 'POST',
    ':path': `/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
    'workload.spiffe.io': 'true',
  })
  let status = 'the connection ended'
  const note = (headers: Readonly<Record<string, unknown>>) => {
    if (headers['grpc-status'] !== undefined)
      status = `code ${headers['grpc-status']}: ${headers['grpc-message'] ?? ''}`
  }
  // an answer without messages has its status in the headers
  stream.on('response', note)
  stream.on('trailers', note)
  stream.on('data', (chunk: Buffer) => reader.push(chunk))
  stream.on('error', () => {})
  stream.on('close', () => resolve(status))
  stream.end(encodeFrame(message))
  return {
    ended,
    async [Symbol.asyncDispose]() {
      if (socket.destroyed) return
      const closed = once(socket, 'close')
      session.destroy()
      socket.destroy()
      await closed
    },
  }
}

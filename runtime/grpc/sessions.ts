// The HTTP/2 sessions of a server: made of accepted sockets, bounded, ended one by one or together.

import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2'
import http2, { type Http2Server, type ServerHttp2Session } from 'node:http2'
import type net from 'node:net'
import type tls from 'node:tls'
import { hasCode } from '../../spiffe/errors.ts'
import { abort, type Call, type Caller } from './answer.ts'
import { sayGoodbye } from './goodbye.ts'
import { closing } from './status.ts'

export interface SessionLimits {
  readonly headerBytes: number
  readonly messageBytes: number
  readonly streams: number
  /** milliseconds without a call; 0 is for ever */
  readonly idle: number
}

export interface Session<P> extends Caller<P> {
  readonly ended: Promise<void>
}

export type OnStream<P> = (
  session: Session<P>,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
) => void

export interface Sessions<P> {
  /** Speaks HTTP/2 on `socket`, unless `peer` throws. */
  accept(socket: net.Socket | tls.TLSSocket): void
  readonly open: ReadonlySet<Session<P>>
}

function createHttp2({ headerBytes, messageBytes, streams }: SessionLimits): Http2Server {
  return http2.createServer({
    settings: { maxConcurrentStreams: streams, maxHeaderListSize: headerBytes, enablePush: false },
    // of metadata: each pair costs more than its bytes
    maxHeaderListPairs: 64,
    // MB of frames that wait to be read. Over this Node refuses new streams, innocent ones too, so
    // it has to have room for an answer of full size on each; requests are bounded by their windows.
    maxSessionMemory: 10 + Math.ceil((streams * messageBytes) / 1_000_000),
    maxSettings: 16,
    // frames and streams refused before the session is ended
    maxSessionInvalidFrames: 1000,
    maxSessionRejectedStreams: 100,
    // rapid reset (CVE-2023-44487): so many cancels at once, so many per second after that
    streamResetBurst: 1000,
    streamResetRate: 33,
  })
}

export interface SessionOptions<P> {
  readonly limits: SessionLimits
  readonly peer: (socket: net.Socket | tls.TLSSocket) => P
  readonly disconnected: ((peer: P) => void) | undefined
  readonly onStream: OnStream<P>
}

/** A timer of our own: Node's keeps a session that has ended, with all that it held, until it is due. */
function closeWhenIdle<P>({ calls, http2: session, socket }: Session<P>, idle: number): void {
  const timer = setTimeout(() => {
    timer.refresh()
    if (calls.size > 0) return
    // one that does not read the end of its calls would never be closed
    if (session.closed) socket.destroy()
    else session.close()
  }, idle)
  session.on('stream', (stream) => {
    timer.refresh()
    stream.once('close', () => {
      if (!session.destroyed) timer.refresh()
    })
  })
  session.once('close', () => clearTimeout(timer))
}

/** Whoever made `peer` throw has said why; a peer is told that it is one too many, and nothing else. */
function refuse(socket: net.Socket, error: unknown): void {
  if (hasCode(error, 'ERR_EXHAUSTED')) sayGoodbye(socket, error.message)
  else socket.on('error', () => {}).destroy()
}

export function createSessions<P>(options: SessionOptions<P>): Sessions<P> {
  const server = createHttp2(options.limits)
  const open = new Set<Session<P>>()

  function adopt(http2Session: ServerHttp2Session, socket: net.Socket, peer: P): void {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const calls = new Set<Call<P>>()
    const session: Session<P> = { http2: http2Session, socket, peer, calls, ended }
    open.add(session)
    // clients of grpc-go end every connection with a protocol error
    http2Session.on('error', () => {})
    http2Session.on('close', () => {
      open.delete(session)
      end()
      options.disconnected?.(peer)
    })
    http2Session.on('stream', (stream, headers, _flags, rawHeaders) => {
      options.onStream(session, stream, headers, rawHeaders)
    })
    if (options.limits.idle > 0) closeWhenIdle(session, options.limits.idle)
  }

  return {
    open,
    accept(socket) {
      let peer: P
      try {
        peer = options.peer(socket)
      } catch (error) {
        refuse(socket, error)
        return
      }
      // 'connection' gives the 'session' event before it returns, so the two are a pair
      const take = (session: ServerHttp2Session) => adopt(session, socket, peer)
      server.once('session', take)
      server.emit('connection', socket)
      server.off('session', take)
    },
  }
}

/** GOAWAY now, the calls that `which` picks answered UNAVAILABLE, the rest may end. */
export function closeSession<P>(
  session: Session<P>,
  which: (call: Call<P>) => boolean = () => true,
): void {
  for (const call of session.calls) {
    if (which(call)) abort(call, closing())
  }
  session.http2.close()
}

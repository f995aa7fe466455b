// A gRPC server on node:http2: routes, limits, connections and the drain.

import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2'
import type net from 'node:net'
import type tls from 'node:tls'
import type { Any } from '@bufbuild/protobuf/wkt'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Clock, systemClock } from '../clock.ts'
import type { CallEvent, CallTrace, Rules } from './answer.ts'
import { startCall } from './call.ts'
import { createDeadlines } from './deadline.ts'
import { type Listen, type Listener, startListener } from './listen.ts'
import { createReading, type ReadingOptions, type UnreadStream } from './reading.ts'
import { type CallContext, methodName, type Route, type Service } from './service.ts'
import {
  closeSession,
  createSessions,
  type OnStream,
  type Session,
  type Sessions,
} from './sessions.ts'
import { statusOf, trailersOnly, whole } from './status.ts'
import { resetSoon } from './unended.ts'

export type { CallEvent } from './answer.ts'
export type { CallContext } from './service.ts'

export interface GrpcServer<P = unknown> extends AsyncDisposable {
  /** `host:port`, or the path of the unix socket */
  readonly address: string
  /** 0 on a unix socket */
  readonly port: number
  /** HTTP/2 streams that are open now */
  readonly openStreams: number
  /** How many calls of each streaming method are open; those without any are among them. */
  streams(): ReadonlyMap<string, number>
  readonly connections: number
  /** Replaces everything (setSecureContext): what is not passed again returns to its default. */
  setTls(options: tls.SecureContextOptions): void
  /** Streams whose client has not read for a while; none where `reading` is left out. */
  unread(): readonly UnreadStream<P>[]
  /** Resolves once what was written to streams is read, or they are late; at once where `reading` is left out. */
  caughtUp(): Promise<void>
  /** Ends the connections whose peer matches; their calls end with UNAVAILABLE. */
  disconnect(when: (peer: P) => boolean): void
  /** Accepts nothing more, ends streaming calls with UNAVAILABLE, waits for unary ones up to drainTimeout. */
  drain(): Promise<void>
}

export interface GrpcLimits {
  /** of one request message; 4 MiB */
  readonly messageBytes?: number
  /** of all the metadata of a call; 16 KiB */
  readonly headerBytes?: number
  /** 100 */
  readonly streamsPerConnection?: number
  /** no limit */
  readonly connections?: number
  /** milliseconds after which a connection without calls is closed; 10 minutes, 0 is never */
  readonly idle?: number
}

export interface GrpcServerOptions<P> {
  readonly listen: Listen
  /** ALPN is h2 always; sessions and tickets are the caller's business */
  readonly tls?: tls.TlsOptions
  readonly services: readonly Service<P>[]
  /** Services that are loaded while others are served already; who calls one of them waits. */
  readonly later?: Promise<readonly Service<P>[]> | undefined
  /** Called once per connection, synchronously, before any byte of HTTP/2; a throw refuses the connection. */
  readonly peer: (socket: net.Socket | tls.TLSSocket) => P
  readonly disconnected?: (peer: P) => void
  /** Called before a request is read; a throw is the answer. */
  readonly authorize?: (context: CallContext<P>) => void | Promise<void>
  /** Called for every call that ended. */
  readonly observe?: (event: CallEvent<P>) => void
  /** Called before anything else for every call; undefined for those that are not followed. */
  readonly trace?: ((context: CallContext<P>) => CallTrace | undefined) | undefined
  /** more google.rpc.Status details for an error */
  readonly details?: (error: IdentityError) => readonly Any[]
  readonly limits?: GrpcLimits
  /** what becomes of streams that their clients do not read; they wait for ever when left out */
  readonly reading?: ReadingOptions<P>
  /** milliseconds; 5 seconds */
  readonly drainTimeout?: number
  readonly clock?: Clock
}

// what clients accept by default too
const defaultMessageBytes = 4 * 1024 * 1024

function routesOf<P>(services: readonly Service<P>[]): ReadonlyMap<string, Route<P>> {
  const routes = new Map<string, Route<P>>()
  for (const { descriptor, routes: served } of services) {
    for (const route of served) routes.set(`/${methodName(route.method)}`, route)
    const twice = services.filter((other) => other.descriptor.typeName === descriptor.typeName)
    if (twice.length > 1) throw new TypeError(`service ${descriptor.typeName} is given twice`)
  }
  return routes
}

const plain = /^application\/grpc(\+proto)?(;.*)?$/

/** What is no gRPC call at all is answered in HTTP. */
function httpRefusal(headers: IncomingHttpHeaders): number | undefined {
  if (headers[':method'] !== 'POST') return 405
  return plain.test(headers['content-type'] ?? '') ? undefined : 415
}

interface Streams<P> {
  readonly onStream: OnStream<P>
  readonly count: () => number
}

/** The route of a path: at once, or once the services that come later have come. */
function createRouting<P>({ services, later }: Pick<GrpcServerOptions<P>, 'services' | 'later'>) {
  let routes = routesOf(services)
  let coming = later?.then(
    (more) => {
      routes = routesOf([...services, ...more])
      coming = undefined
    },
    // whoever failed to load them has said so
    () => {
      coming = undefined
    },
  )
  return {
    find(path: string, found: (route: Route<P> | undefined) => void): void {
      const route = routes.get(path)
      if (route !== undefined || coming === undefined) found(route)
      else void coming.then(() => found(routes.get(path)))
    },
    all: () => [...routes.values()],
  }
}

type Routing<P> = ReturnType<typeof createRouting<P>>

function createStreams<P>(routing: Routing<P>, rules: Rules<P>): Streams<P> {
  let open = 0
  const closed = () => void open--

  function refuse(peer: P, stream: ServerHttp2Stream, path: string): void {
    const error = new IdentityError('ERR_UNIMPLEMENTED', `no method ${path}`)
    const status = statusOf(error)
    stream.respond(trailersOnly(status), whole)
    resetSoon(stream)
    rules.observe?.({ method: 'unknown', code: status.code, ms: 0, peer, error })
  }

  const onStream: OnStream<P> = (session, stream, headers, rawHeaders) => {
    open++
    stream.on('close', closed)
    stream.on('error', ignore)
    if (stream.destroyed || stream.closed) return
    const refusal = httpRefusal(headers)
    if (refusal !== undefined) {
      stream.respond({ ':status': refusal }, { endStream: true })
      resetSoon(stream)
      return
    }
    const path = headers[':path'] ?? ''
    routing.find(path, (route) => {
      if (stream.destroyed || stream.closed) return
      if (route === undefined) refuse(session.peer, stream, path)
      else startCall({ stream, headers, rawHeaders, route, caller: session }, rules)
    })
  }
  return { onStream, count: () => open }
}

/** An aborted call or session says so where it matters; Node repeats it as an 'error' event. */
function ignore(): void {}

interface Parts<P> {
  readonly listener: Listener
  readonly sessions: Sessions<P>
  readonly clock: Clock
  /** milliseconds */
  readonly patience: number
}

async function drainParts<P>({ clock, listener, sessions, patience }: Parts<P>): Promise<void> {
  const closed = new Promise<void>((resolve) => listener.server.close(() => resolve()))
  const ended = [...sessions.open].map((session) => {
    closeSession(session, ({ route }) => route.kind !== 'unary')
    return session.ended
  })
  const done = new AbortController()
  const late = clock.sleep(patience, { signal: done.signal }).catch(ignore)
  await Promise.race([Promise.all(ended), late])
  // those that are late, and connections that never finished their handshake
  for (const session of sessions.open) closeSession(session)
  for (const socket of listener.sockets) socket.destroy()
  await closed
  done.abort()
}

/** A second in ten parts: a program that stood still for longer has yet had ten turns to write. */
async function aSecond(signal: AbortSignal): Promise<void> {
  for (let part = 0; part < 10; part++) await systemClock.sleep(100, { signal })
}

function streamsOf<P>(routing: Routing<P>, { open }: Sessions<P>): Map<string, number> {
  const isStreaming = ({ kind }: Route<P>) => kind !== 'unary'
  const methods = routing.all().filter(isStreaming)
  const counts = new Map(methods.map(({ method }) => [methodName(method), 0]))
  for (const { calls } of open) {
    for (const { route } of calls) {
      const name = methodName(route.method)
      if (isStreaming(route)) counts.set(name, (counts.get(name) ?? 0) + 1)
    }
  }
  return counts
}

/** A peer that is told to go gets a second to read why. */
async function disconnectSession<P>(session: Session<P>): Promise<void> {
  closeSession(session)
  const done = new AbortController()
  await Promise.race([session.ended, aSecond(done.signal).catch(ignore)])
  done.abort()
  session.socket.destroy()
}

function rulesOf<P>(
  options: GrpcServerOptions<P>,
  parts: Pick<Rules<P>, 'clock' | 'deadlines' | 'reading'>,
): Rules<P> {
  return {
    ...parts,
    messageBytes: options.limits?.messageBytes ?? defaultMessageBytes,
    authorize: options.authorize,
    observe: options.observe,
    trace: options.trace,
    details: options.details,
  }
}

export async function startGrpcServer<P>(options: GrpcServerOptions<P>): Promise<GrpcServer<P>> {
  const { clock = systemClock, drainTimeout: patience = 5000, limits = {} } = options
  const deadlines = createDeadlines(clock)
  const reading = options.reading && createReading(options.reading, clock)
  const routing = createRouting(options)
  const streams = createStreams(routing, rulesOf(options, { clock, deadlines, reading }))
  const sessions = createSessions({
    limits: {
      messageBytes: limits.messageBytes ?? defaultMessageBytes,
      headerBytes: limits.headerBytes ?? 16 * 1024,
      streams: limits.streamsPerConnection ?? 100,
      idle: limits.idle ?? 600_000,
    },
    peer: options.peer,
    disconnected: options.disconnected,
    onStream: streams.onStream,
  })
  let draining: Promise<void> | undefined
  const listener = await startListener({
    listen: options.listen,
    tls: options.tls,
    connections: limits.connections,
    accept: (socket) => (draining === undefined ? sessions.accept(socket) : socket.destroy()),
  })

  async function drain(): Promise<void> {
    await drainParts({ clock, listener, sessions, patience })
    await reading?.[Symbol.asyncDispose]()
    deadlines[Symbol.dispose]()
  }
  const drainOnce = () => {
    draining ??= drain()
    return draining
  }

  return {
    address: listener.address,
    port: listener.port,
    get openStreams() {
      return streams.count()
    },
    streams: () => streamsOf(routing, sessions),
    get connections() {
      return sessions.open.size
    },
    setTls: listener.setTls,
    unread: () => reading?.unread() ?? [],
    caughtUp: async () => await reading?.caughtUp(),
    disconnect(when) {
      for (const session of sessions.open) if (when(session.peer)) void disconnectSession(session)
    },
    drain: drainOnce,
    [Symbol.asyncDispose]: drainOnce,
  }
}

// One inbound listener: mutual TLS in, verified and decided before a byte is read, plain to the workload.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { InboundSpec } from '../proxy-spec/inbound.ts'
import { addressText } from '../runtime/config.ts'
import { explain } from '../spiffe/errors.ts'
import type { Connection, Retirement } from './connections.ts'
import { forwardedPath, judge } from './consult.ts'
import type { Core, Listener } from './core.ts'
import type { Answer, Door, Passage, Refusal } from './door.ts'
import { createHandshakes } from './handshakes.ts'
import { withoutIdentity } from './headers.ts'
import { http1Server } from './http1.ts'
import { http2Server } from './http2.ts'
import type { Identity } from './identity.ts'
import { type Allowed, type Arrival, judgeTcp, type Verdict } from './judge.ts'
import { listen } from './listen.ts'
import { pipeToWorkload, type TlsSide, tlsSide } from './pipe.ts'
import { contextOptions, inboundTls } from './tls.ts'
import { type OwnedRoute, workloadRoute } from './workload-route.ts'

/** Takes over a connection whose peer was verified. */
type Serve = (side: TlsSide, connection: Connection) => void
type Retire = (why: Retirement, side: TlsSide, connection: Connection) => void

interface Protocol extends Disposable {
  readonly alpn: readonly string[]
  readonly serve: Serve
  readonly retire: Retire
}

function tcpProtocol(core: Core, spec: InboundSpec): Protocol {
  const { forwardTo } = spec
  function serve(side: TlsSide, connection: Connection): void {
    const request = judgeTcp(core, arrivalOf(side.socket, connection, spec))
    if (request === undefined) {
      side.break()
      return
    }
    side.socket.once('close', connection.begin({ request, end: side.break }))
    const workload = pipeToWorkload(side, forwardTo, core.limits)
    workload.setTimeout(core.limits.connect, () => workload.destroy())
    workload.once('connect', () => workload.setTimeout(0))
    workload.once('error', (error) => {
      core.tally.failed()
      core.log.warn({ err: error, workload: addressText(forwardTo) }, 'connection failed')
    })
  }
  return {
    alpn: [],
    serve,
    retire(why, side) {
      // at shutdown it may finish; of age it ends here, for bytes have no better moment
      if (why === 'age') side.break()
    },
    [Symbol.dispose]() {},
  }
}

function arrivalOf(
  socket: TLSSocket,
  connection: Connection,
  { forwardTo: { port }, backend }: InboundSpec,
): Arrival {
  const { remoteAddress: sourceAddress, servername } = socket
  return { connection, sourceAddress, sni: servername || undefined, port, backend }
}

/** RFC 9110 §10.2.3: whole seconds, and none is no time to wait. */
function tooMany(retryAfter: number): Refusal {
  const seconds = Math.max(1, Math.ceil(retryAfter / 1000))
  return { status: 429, text: 'too many requests', headers: { 'retry-after': String(seconds) } }
}

/** RFC 9110 §15.5.2: a 401 says how to authenticate; RFC 6750 §3.1 that it was the token. */
function refused({ status, reason }: Extract<Verdict, { kind: 'refused' }>): Refusal {
  const challenge = { 'www-authenticate': 'Bearer error="invalid_token"' }
  return { status, text: reason, ...(status === 401 ? { headers: challenge } : {}) }
}

interface Way {
  readonly route: OwnedRoute
  readonly socket: TLSSocket
  readonly connection: Connection
}

function passageOf(core: Core, verdict: Allowed, { route, socket, connection }: Way): Passage {
  const { peer, decided, raw, consents, downstream } = verdict
  const { request, authenticated } = decided
  return {
    route,
    headers: raw.headers,
    downstream,
    path: forwardedPath(decided),
    added: [...authenticated.adds, core.identityHeader, peer],
    drops: authenticated.drops,
    isLast: () => connection.retired,
    begin(end) {
      const done = connection.begin({ request, consents, backend: decided.guard.mesh.backend, end })
      return () => {
        done()
        if (connection.retired && !connection.busy) socket.destroySoon()
      }
    },
  }
}

function answerTo(core: Core, verdict: Verdict, way: Way): Answer {
  switch (verdict.kind) {
    case 'refused':
      return refused(verdict)
    case 'denied':
      return verdict.refusal ?? { status: 403, text: 'access denied' }
    case 'limited':
      return tooMany(verdict.retryAfter)
    case 'allowed':
      return passageOf(core, verdict, way)
  }
}

function doorOf(core: Core, spec: InboundSpec, way: Way): Door {
  const { socket, connection } = way
  const arrival = arrivalOf(socket, connection, spec)
  const leaving = new AbortController()
  socket.once('close', () => leaving.abort())
  const gone = leaving.signal

  /** The connection stays while others are asked, also at shutdown. */
  async function answerAfter(verdict: Promise<Verdict>): Promise<Answer> {
    const release = connection.hold()
    try {
      return answerTo(core, await verdict, way)
    } finally {
      // whoever waits for the answer goes first
      setImmediate(() => {
        release()
        const isOver = connection.retired && !connection.busy
        if (isOver && socket.alpnProtocol !== 'h2') socket.destroySoon()
      })
    }
  }

  return {
    open(asked) {
      const raw = { ...asked, headers: withoutIdentity(asked.headers, core) }
      const verdict = judge(core, arrival, { raw, gone })
      return verdict instanceof Promise ? answerAfter(verdict) : answerTo(core, verdict, way)
    },
  }
}

function httpProtocol(core: Core, spec: InboundSpec): Protocol {
  const route = workloadRoute(spec.forwardTo)
  const doors = new WeakMap<object, Door>()
  const sessions = new WeakMap<TLSSocket, { close(): void }>()
  const find = (connection: object) => doors.get(connection)
  const http1 = http1Server(core, find)
  const http2 = http2Server(core, find)
  // it never listens itself, but its timers for slow headers start with this event
  http1.emit('listening')
  return {
    alpn: ['h2', 'http/1.1'],
    serve({ socket }, connection) {
      const door = doorOf(core, spec, { route, socket, connection })
      doors.set(socket, door)
      if (socket.alpnProtocol !== 'h2') return void http1.emit('connection', socket)
      http2.once('session', (session) => {
        doors.set(session, door)
        sessions.set(socket, session)
      })
      http2.emit('connection', socket)
    },
    retire(why, { socket }, connection) {
      const session = sessions.get(socket)
      if (session !== undefined) session.close()
      else if (why === 'shutdown' && !connection.busy) socket.destroySoon()
    },
    [Symbol.dispose]() {
      http1.close()
      http2.close()
      route[Symbol.dispose]()
    },
  }
}

function maxAgeOf(spec: InboundSpec, identity: Identity | undefined): number {
  return Math.min(spec.maxConnectionAge ?? Infinity, (identity?.life ?? 0) / 2)
}

/** What becomes of a connection whose handshake is done: registered, verified, served, or ended. */
function admission(core: Core, spec: InboundSpec, protocol: Protocol) {
  const { identities, connections, tally, log } = core

  function refuse(error: unknown, from: Socket): void {
    tally.failed()
    log.warn({ reason: explain(error), from: from.remoteAddress }, 'connection refused')
  }

  function admit(side: TlsSide): void {
    const { socket } = side
    socket.on('error', (error) => log.debug({ err: error }, 'connection failed'))
    const connection = connections.add(socket, {
      maxAge: maxAgeOf(spec, identities.current()),
      end: side.break,
      onRetire: (why, it) => protocol.retire(why, side, it),
    })
    try {
      connection.peer()
      protocol.serve(side, connection)
    } catch (error) {
      refuse(error, socket)
      side.break()
    }
  }

  return { refuse, admit }
}

/** `identity` is the one in use now; later ones are followed. */
export async function startInbound(
  shared: Core,
  identity: Identity,
  { spec, name }: { readonly spec: InboundSpec; readonly name: string },
): Promise<Listener> {
  const { identities, limits, clock } = shared
  const core = { ...shared, log: shared.log.child({ listener: name }) }
  const protocol = (spec.protocol === 'tcp' ? tcpProtocol : httpProtocol)(core, spec)
  const { refuse, admit } = admission(core, spec, protocol)
  await using starting = new AsyncDisposableStack()
  starting.use(protocol)
  const handshakes = starting.use(createHandshakes(limits, clock))
  const server = inboundTls(identity, protocol.alpn, {
    limits,
    admit(socket) {
      handshakes.end(socket)
      admit(tlsSide(socket))
    },
  })
  server.on('tlsClientError', refuse)
  const follow = (next: Identity | undefined) => {
    if (next !== undefined) server.setSecureContext(contextOptions(next))
  }
  starting.use(identities.subscribe(follow))
  const accepting = await listen(spec.listen, limits, (socket) => {
    if (identities.current() === undefined) {
      refuse('no identity at present', socket)
      socket.destroy()
      return
    }
    handshakes.begin(socket)
    server.emit('connection', socket)
  })
  const started = starting.move()
  return {
    name,
    address: spec.listen.host,
    port: accepting.port,
    stop: accepting.stop,
    async close() {
      for (const socket of accepting.sockets) socket.destroy()
      await started.disposeAsync()
    },
  }
}

// One inbound listener: mutual TLS in, or plaintext where the spec takes it, verified and decided before a byte is
// read, plain to the workload.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { InboundSpec } from '../proxy-spec/inbound.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import type { Connection, ConnectionOptions } from './connections.ts'
import type { Core, Listener } from './core.ts'
import { awaitBeginning } from './first-bytes.ts'
import { createHandshakes, type Handshakes } from './handshakes.ts'
import type { Identity } from './identity.ts'
import type { Arrived } from './inbound-door.ts'
import { inboundProtocol, type Protocol } from './inbound-protocol.ts'
import { withLimits } from './limits.ts'
import { listen } from './listen.ts'
import { plainSide, type Side, tlsSide } from './pipe.ts'
import { contextOptions, inboundTls } from './tls.ts'

/** The own certificate ends, and with it what was proven by it; in the clear nothing was. */
function maxAgeOf(spec: InboundSpec, life: number): number {
  return Math.min(spec.maxConnectionAge ?? Number.POSITIVE_INFINITY, life / 2)
}

/** What becomes of a connection that can be told what it is: registered, verified, served, or ended. */
function admission(core: Core, spec: InboundSpec, protocol: Protocol) {
  const { identities, connections, tally, log } = core

  function refuse(error: unknown, from: Socket): void {
    tally.failed()
    log.warn({ reason: explain(error), from: from.remoteAddress }, 'connection refused')
  }

  function serve(side: Side, register: (its: ConnectionOptions) => Connection, its: Speaking) {
    const { socket } = side
    socket.on('error', (error) => log.debug({ err: error }, 'connection failed'))
    const connection = register({
      maxAge: maxAgeOf(spec, its.life),
      end: side.break,
      onRetire: (why, it) => protocol.retire(why, side, it),
    })
    try {
      connection.peer()
      protocol.serve({ side, connection, ...its })
    } catch (error) {
      refuse(error, socket)
      side.break()
    }
  }

  return {
    refuse,
    admitTls(socket: TLSSocket): void {
      const life = identities.current()?.life ?? 0
      const isHttp2 = socket.alpnProtocol === 'h2'
      const its = { isHttp2, sni: socket.servername || undefined, life }
      serve(tlsSide(socket), (options) => connections.add(socket, options), its)
    },
    admitPlain(socket: Socket, isHttp2: boolean): void {
      const its = { isHttp2, sni: undefined, life: Number.POSITIVE_INFINITY }
      serve(plainSide(socket), (options) => connections.addPlain(socket, options), its)
    },
  }
}

type Speaking = Pick<Arrived, 'isHttp2' | 'sni'> & { readonly life: number }

interface Entrance {
  readonly handshakes: Handshakes
  startTls(socket: Socket): void
  startPlain(socket: Socket, isHttp2: boolean): void
  refuse(error: unknown, from: Socket): void
}

/**
 * Tells TLS from plaintext by the first byte, so a client that waits for the server's greeting waits for ever, or
 * until the limit of handshakes: protocols in which the server speaks first need `strict` or `off`. Bytes in the
 * clear that begin as TLS does are taken for TLS.
 */
function entranceOf(spec: InboundSpec, entrance: Entrance): (socket: Socket) => void {
  const { handshakes, startTls, startPlain, refuse } = entrance
  const { mtls, protocol } = spec
  if (mtls === 'strict') {
    return (socket) => {
      handshakes.begin(socket)
      startTls(socket)
    }
  }
  if (mtls === 'off' && protocol === 'tcp') return (socket) => startPlain(socket, false)
  return (socket) => {
    handshakes.begin(socket)
    awaitBeginning(socket, (beginning) => {
      if (beginning === 'tls' && mtls === 'permissive') return startTls(socket)
      handshakes.end(socket)
      if (beginning !== 'tls') return startPlain(socket, beginning === 'h2')
      refuse(new IdentityError('ERR_BAD_REQUEST', 'TLS, where mtls is off'), socket)
      socket.destroy()
    })
  }
}

/** `identity` is the one in use now; later ones are followed. */
export async function startInbound(
  shared: Core,
  identity: Identity,
  { spec, name }: { readonly spec: InboundSpec; readonly name: string },
): Promise<Listener> {
  const { identities, clock } = shared
  const limits = withLimits(shared.limits, spec.limits)
  const core = { ...shared, limits, log: shared.log.child({ listener: name }) }
  const protocol = inboundProtocol(core, spec)
  const { refuse, admitTls, admitPlain } = admission(core, spec, protocol)
  await using starting = new AsyncDisposableStack()
  starting.use(protocol)
  const handshakes = starting.use(createHandshakes(limits, clock))
  const admit = (socket: TLSSocket) => {
    handshakes.end(socket)
    admitTls(socket)
  }
  const server = inboundTls(identity, protocol.alpn, { limits, admit })
  server.on('tlsClientError', refuse)
  const follow = (next: Identity | undefined) => {
    if (next !== undefined) server.setSecureContext(contextOptions(next))
  }
  starting.use(identities.subscribe(follow))
  const startTls = (socket: Socket) => void server.emit('connection', socket)
  const enter = entranceOf(spec, { handshakes, startTls, startPlain: admitPlain, refuse })
  const accepting = await listen(spec.listen, limits, (socket) => {
    if (identities.current() !== undefined) return enter(socket)
    refuse('no identity at present', socket)
    socket.destroy()
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

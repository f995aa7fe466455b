// One outbound listener: plain from local programs, mutual TLS to peers that have to be the expected.
import type { Socket } from 'node:net'
import type { OutboundSpec } from '../proxy-spec/outbound.ts'
import type { Address } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { matchOneOf } from '../spiffe/match.ts'
import { failureOf, type Sent, type Told } from './attempt.ts'
import { noBody } from './body.ts'
import type { Core, Listener } from './core.ts'
import type { Door } from './door.ts'
import { startExchange } from './exchange.ts'
import { awaitBeginning } from './first-bytes.ts'
import { http1Server } from './http1.ts'
import { http2Server } from './http2.ts'
import { listen } from './listen.ts'
import type { Onward, Route } from './onward.ts'
import { reachPeer } from './peer-route.ts'
import { createPeerRoutes } from './peer-routes.ts'
import { pipeBoth, plainSide, type Side } from './pipe.ts'
import { createSlots } from './slots.ts'
import { createUpstreams } from './upstreams.ts'

interface Protocol extends Disposable {
  serve(socket: Socket): void
  stop(): void
}

const mostOf = ({ limits: { connections = Number.POSITIVE_INFINITY } }: OutboundSpec) => connections

function tcpProtocol(core: Core, spec: OutboundSpec): Protocol {
  const expect = matchOneOf(spec.expect)
  // a connection of bytes is never idle
  const slots = createSlots(mostOf(spec), () => undefined)
  const upstreams = createUpstreams<Address>(core, spec, {
    routeTo: (address) => (core.identities.current() === undefined ? undefined : address),
    onGone() {},
  })

  async function reach(address: Address): Promise<Side> {
    const identity = core.identities.current()
    if (identity === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'no identity at present')
    return (await reachPeer(core, identity, { address, expect, slots }, [])).side
  }

  function send(address: Address, told: Told<Side>): Sent {
    let isOver = false
    reach(address).then(
      (peer) => {
        if (isOver) peer.break()
        else told.answered({ status: 200 }, peer)
      },
      (error: unknown) => told.failed(failureOf(error, false)),
    )
    const abort = () => {
      isOver = true
    }
    return { abort, discard: abort }
  }

  return {
    serve(socket) {
      const running = startExchange<Address, Side>({
        ...{ core, send, onward: upstreams.onward, body: noBody },
        asking: { method: '', isGrpc: false },
        deliver: (peer) => pipeBoth(plainSide(socket), peer, core.limits),
        refuse: () => void socket.resetAndDestroy(),
        cut: () => void socket.resetAndDestroy(),
      })
      socket.once('close', () => running.end(false))
    },
    stop() {},
    [Symbol.dispose]: () => upstreams[Symbol.dispose](),
  }
}

function doorOf(onward: Onward<Route>, spec: OutboundSpec, isLast: () => boolean): Door {
  const overHttp2 = spec.protocol === 'grpc'
  return {
    open({ target, headers }) {
      if (!target.startsWith('/')) return { status: 400, text: 'bad request' }
      return {
        ...{ onward, overHttp2, path: target, headers, added: [], drops: [], downstream: [] },
        ...{ begin: () => () => {}, isLast },
      }
    },
  }
}

/** The routes to the endpoints, and how they are chosen: each asks the other. */
function wayOut(core: Core, spec: OutboundSpec): { readonly onward: Onward<Route> } & Disposable {
  const ways = new DisposableStack()
  const routes = createPeerRoutes(core, {
    expect: matchOneOf(spec.expect),
    most: mostOf(spec),
    isIdle: (key) => upstreams.isIdle(key),
  })
  const upstreams = createUpstreams<Route>(core, spec, {
    routeTo: (address) => routes.to(address),
    onGone: (key) => routes.retire(key),
  })
  ways.use(routes)
  ways.use(upstreams)
  return { onward: upstreams.onward, [Symbol.dispose]: () => ways.dispose() }
}

function httpProtocol(core: Core, spec: OutboundSpec): Protocol {
  const way = wayOut(core, spec)
  let isStopped = false
  const door = doorOf(way.onward, spec, () => isStopped)
  const http1 = http1Server(core, () => door)
  const http2 = http2Server(core, () => door)
  http1.emit('listening')
  const sessions = new Set<{ close(): void }>()
  http2.on('session', (session) => {
    sessions.add(session)
    session.once('close', () => sessions.delete(session))
  })
  return {
    serve(socket) {
      awaitBeginning(socket, (beginning) => {
        if (beginning === 'h2') http2.emit('connection', socket)
        else if (spec.protocol === 'grpc') socket.destroy()
        else {
          http1.emit('connection', socket)
          socket.resume()
        }
      })
    },
    stop() {
      isStopped = true
      http1.closeIdleConnections()
      for (const session of sessions) session.close()
      way[Symbol.dispose]()
    },
    [Symbol.dispose]() {
      http1.close()
      http2.close()
    },
  }
}

export async function startOutbound(
  shared: Core,
  { spec, name }: { readonly spec: OutboundSpec; readonly name: string },
): Promise<Listener> {
  const limits = { ...shared.limits, connect: spec.connectTimeout }
  const core = { ...shared, limits, log: shared.log.child({ listener: name }) }
  const protocol = (spec.protocol === 'tcp' ? tcpProtocol : httpProtocol)(core, spec)
  const accepting = await listen(spec.listen, limits, protocol.serve)
  return {
    name,
    address: spec.listen.host,
    port: accepting.port,
    stop() {
      accepting.stop()
      protocol.stop()
    },
    async close() {
      for (const socket of accepting.sockets) socket.destroySoon()
      protocol[Symbol.dispose]()
    },
  }
}

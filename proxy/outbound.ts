// One outbound listener: plain from local programs, mutual TLS to peers that have to be the expected.
import type { Socket } from 'node:net'
import type { OutboundSpec } from '../proxy-spec/outbound.ts'
import type { Address } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { matchOneOf } from '../spiffe/match.ts'
import type { Core, Listener } from './core.ts'
import type { Door } from './door.ts'
import { awaitBeginning } from './first-bytes.ts'
import { http1Server } from './http1.ts'
import { http2Server } from './http2.ts'
import { listen } from './listen.ts'
import { createPeerRoutes, type PeerRoutes, reachPeer } from './peer-route.ts'
import { pipeBoth, plainSide, type Side } from './pipe.ts'

interface Protocol extends Disposable {
  serve(socket: Socket): void
  stop(): void
}

/** Where the spec leads to now; undefined for a service that the agent does not know. */
function addressOf(
  { mesh }: Core,
  { destination, service = '' }: OutboundSpec,
): Address | undefined {
  const [first] = destination ?? mesh.current().endpoints.get(service) ?? []
  return first
}

function tcpProtocol(core: Core, spec: OutboundSpec): Protocol {
  const expect = matchOneOf(spec.expect)
  async function reach(): Promise<Side> {
    const address = addressOf(core, spec)
    const identity = core.identities.current()
    if (address === undefined) {
      throw new IdentityError('ERR_NOT_FOUND', `no endpoint of service ${spec.service}`)
    }
    if (identity === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'no identity at present')
    const { side } = await reachPeer(core, identity, { address, expect }, [])
    return side
  }
  return {
    serve(socket) {
      reach().then(
        (peer) => {
          if (socket.destroyed) peer.break()
          else pipeBoth(plainSide(socket), peer, core.limits)
        },
        (error: unknown) => {
          core.tally.failed()
          core.log.warn({ err: error }, 'connection failed')
          socket.resetAndDestroy()
        },
      )
    },
    stop() {},
    [Symbol.dispose]() {},
  }
}

function doorOf(
  core: Core,
  spec: OutboundSpec,
  { routes, isStopped }: { readonly routes: PeerRoutes; readonly isStopped: () => boolean },
): Door {
  return {
    open({ target, headers }) {
      if (!target.startsWith('/')) return { status: 400, text: 'bad request' }
      const address = addressOf(core, spec)
      const route = address && routes.to(address)
      if (route === undefined) {
        core.tally.failed()
        const text = address === undefined ? 'unknown service' : 'no identity at present'
        core.log.warn({ service: spec.service, reason: text }, 'request failed')
        return { status: 502, text }
      }
      return {
        ...{ overHttp2: spec.protocol === 'grpc' },
        ...{ route, path: target, headers, added: [], drops: [], downstream: [] },
        ...{ begin: () => () => {}, isLast: isStopped },
      }
    },
  }
}

function httpProtocol(core: Core, spec: OutboundSpec): Protocol {
  const routes = createPeerRoutes(core, spec.expect)
  let isStopped = false
  const door = doorOf(core, spec, { routes, isStopped: () => isStopped })
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
      routes[Symbol.dispose]()
    },
    [Symbol.dispose]() {
      http1.close()
      http2.close()
    },
  }
}

export async function startOutbound(
  core: Core,
  { spec, name }: { readonly spec: OutboundSpec; readonly name: string },
): Promise<Listener> {
  const log = core.log.child({ listener: name })
  const protocol = (spec.protocol === 'tcp' ? tcpProtocol : httpProtocol)({ ...core, log }, spec)
  const accepting = await listen(spec.listen, core.limits, protocol.serve)
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

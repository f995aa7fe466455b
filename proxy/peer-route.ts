// The route to a peer behind mutual TLS. Connections belong to one version of our identity: after a
// rotation idle ones are dropped and busy ones finish.
import { Agent } from 'node:http'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { type Address, addressText } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { type Matcher, matchOneOf } from '../spiffe/match.ts'
import type { Core } from './core.ts'
import type { Route } from './door.ts'
import type { Identity } from './identity.ts'
import type { TlsSide } from './pipe.ts'
import { connectPeer, type VerifiedPeer } from './tls.ts'

export interface PeerRoute extends Route {
  /** No connection is used for another request; what is in flight finishes. */
  retire(): void
}

export interface Destination {
  readonly address: Address
  readonly expect: Matcher
}

/** A verified connection; nothing was sent on it yet. Rejects otherwise. */
export async function reachPeer(
  core: Core,
  identity: Identity,
  { address, expect }: Destination,
  protocols: readonly string[],
): Promise<VerifiedPeer> {
  const { connections, limits } = core
  const register = (side: TlsSide) =>
    connections.add(side.socket, { match: expect, maxAge: Infinity, end: side.break })
  return await connectPeer(address, { identity, protocols, limits, register })
}

export function peerRoute(core: Core, identity: Identity, destination: Destination): PeerRoute {
  const { address } = destination
  const peers = new WeakMap<object, SpiffeId>()
  let session: Promise<ClientHttp2Session> | undefined

  function agentOf(keepAlive: boolean): Agent {
    const agent = new Agent({ keepAlive })
    agent.createConnection = (_, connected) => {
      reachPeer(core, identity, destination, ['http/1.1']).then(
        ({ side: { socket }, id }) => {
          peers.set(socket, id)
          connected?.(null, socket)
        },
        // the agent looks at the first argument alone when it is an error
        (error: Error) => Reflect.apply(connected ?? (() => {}), undefined, [error]),
      )
      return undefined
    }
    return agent
  }

  async function openSession(): Promise<ClientHttp2Session> {
    const { side, id } = await reachPeer(core, identity, destination, ['h2'])
    const { socket } = side
    if (socket.alpnProtocol !== 'h2') {
      socket.destroy()
      throw new IdentityError('ERR_UNAVAILABLE', `${addressText(address)} does not speak HTTP/2`)
    }
    const opened = connectHttp2(`https://${addressText(address)}`, {
      createConnection: () => socket,
    })
    opened.on('error', () => {})
    peers.set(opened, id)
    return opened
  }

  const pooled = agentOf(true)
  const single = agentOf(false)
  return {
    ...address,
    pooled,
    single,
    async session() {
      const before = await session?.catch(() => undefined)
      if (before !== undefined && !before.closed && !before.destroyed) return before
      session = openSession()
      return await session
    },
    peerOf: (connection) => (connection === null ? undefined : peers.get(connection)),
    retire() {
      pooled.keepSocketAlive = () => false
      for (const free of Object.values(pooled.freeSockets)) {
        for (const socket of [...(free ?? [])]) socket.destroy()
      }
      session?.then((it) => it.close()).catch(() => {})
    },
  }
}

/** The routes of one listener, by address, for the identity in use. */
export interface PeerRoutes extends Disposable {
  /** undefined while there is no identity */
  to(address: Address): PeerRoute | undefined
}

export function createPeerRoutes(core: Core, expected: readonly SpiffeId[]): PeerRoutes {
  const expect = matchOneOf(expected)
  const routes = new Map<string, PeerRoute>()
  const retireAll = () => {
    for (const route of routes.values()) route.retire()
    routes.clear()
  }
  const subscription = core.identities.subscribe(retireAll)
  return {
    to(address) {
      const identity = core.identities.current()
      if (identity === undefined) return undefined
      const key = addressText(address)
      const known = routes.get(key)
      if (known !== undefined) return known
      const route = peerRoute(core, identity, { address, expect })
      routes.set(key, route)
      return route
    },
    [Symbol.dispose]() {
      subscription[Symbol.dispose]()
      retireAll()
    },
  }
}

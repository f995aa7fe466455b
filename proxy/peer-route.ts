// The route to a peer behind mutual TLS. Connections belong to one version of our identity: after a
// rotation idle ones are dropped and busy ones finish.
import { Agent } from 'node:http'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import type { Socket } from 'node:net'
import { type Address, addressText } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Matcher } from '../spiffe/match.ts'
import type { Core } from './core.ts'
import type { Identity } from './identity.ts'
import type { Route } from './onward.ts'
import type { TlsSide } from './pipe.ts'
import type { Slots } from './slots.ts'
import { connectPeer, type VerifiedPeer } from './tls.ts'

export interface PeerRoute extends Route {
  /** No connection is used for another request; what is in flight finishes. */
  retire(): void
  /** Ends a connection that nobody uses; `isIdle` says that nothing at all is under way. */
  dropIdle(isIdle: boolean): Socket | undefined
}

export interface Destination {
  readonly address: Address
  readonly expect: Matcher
  /** of its listener */
  readonly slots: Slots
}

/** A verified connection; nothing was sent on it yet. Rejects otherwise. */
export async function reachPeer(
  core: Core,
  identity: Identity,
  { address, expect, slots }: Destination,
  protocols: readonly string[],
): Promise<VerifiedPeer> {
  const { connections, limits, clock } = core
  const register = (side: TlsSide) =>
    connections.add(side.socket, { match: expect, maxAge: Infinity, end: side.break })
  const slot = slots.take()
  try {
    const peer = await connectPeer(address, { identity, protocols, limits, clock, register })
    slot.isFor(peer.side.socket)
    return peer
  } catch (error) {
    slot[Symbol.dispose]()
    throw error
  }
}

/** The session in use, shared by all who wait for it; its failure is told to them, and is not kept. */
interface Sessions {
  current(): Promise<ClientHttp2Session>
  /** the one that is open */
  readonly known: { readonly session: ClientHttp2Session; readonly socket: Socket } | undefined
}

type Opened = NonNullable<Sessions['known']>

function createSessions(open: () => Promise<Opened>): Sessions {
  let known: Opened | undefined
  let opening: Promise<Opened> | undefined
  const isOver = ({ session }: Opened) => session.closed || session.destroyed
  return {
    async current() {
      if (known !== undefined && !isOver(known)) return known.session
      opening ??= open().finally(() => {
        opening = undefined
      })
      known = await opening
      return known.session
    },
    get known() {
      return known === undefined || isOver(known) ? undefined : known
    },
  }
}

type Reach = (protocols: readonly string[]) => Promise<VerifiedPeer>

async function openSession(address: Address, reach: Reach): Promise<Opened & { id: SpiffeId }> {
  const { side, id } = await reach(['h2'])
  const { socket } = side
  if (socket.alpnProtocol !== 'h2') {
    socket.destroy()
    throw new IdentityError('ERR_UNAVAILABLE', `${addressText(address)} does not speak HTTP/2`)
  }
  const session = connectHttp2(`https://${addressText(address)}`, {
    createConnection: () => socket,
  })
  session.on('error', () => {})
  return { session, socket, id }
}

function agentOf(keepAlive: boolean, reach: Reach, peers: WeakMap<object, SpiffeId>): Agent {
  const agent = new Agent({ keepAlive })
  agent.createConnection = (_, connected) => {
    reach(['http/1.1']).then(
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

const unused = ({ freeSockets }: Agent) =>
  Object.values(freeSockets).flatMap((sockets) => sockets ?? [])

export function peerRoute(core: Core, identity: Identity, destination: Destination): PeerRoute {
  const { address } = destination
  const peers = new WeakMap<object, SpiffeId>()
  const reach: Reach = (protocols) => reachPeer(core, identity, destination, protocols)
  const [pooled, single] = [agentOf(true, reach, peers), agentOf(false, reach, peers)]
  let isRetired = false
  const sessions = createSessions(async () => {
    const opened = await openSession(address, reach)
    peers.set(opened.session, opened.id)
    return opened
  })
  return {
    ...{ ...address, pooled, single },
    async session() {
      const session = await sessions.current()
      // whoever waited for it goes first
      if (isRetired) setImmediate(() => session.close())
      return session
    },
    peerOf: (connection) => (connection === null ? undefined : peers.get(connection)),
    retire() {
      isRetired = true
      pooled.keepSocketAlive = () => false
      for (const socket of unused(pooled)) socket.destroy()
      sessions.known?.session.close()
    },
    dropIdle(isIdle) {
      const { known } = sessions
      const socket = unused(pooled)[0] ?? (isIdle ? known?.socket : undefined)
      if (socket === known?.socket) known?.session.destroy()
      socket?.destroy()
      return socket
    },
  }
}

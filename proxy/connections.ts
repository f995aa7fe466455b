// The live connections with peers: registered before anything is decided about them, looked at again
// when bundles, identity or policies change, and when a certificate or an age comes to its end.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { destinationAt } from '../decisions/destination.ts'
import type { Mesh } from '../decisions/mesh.ts'
import type { Tally } from '../decisions/tally.ts'
import type { VerifiedPeer } from '../decisions/verifier.ts'
import type { Request } from '../policies/attributes/request.ts'
import type { Consents } from '../policies/consent.ts'
import type { Backend } from '../policies/language/mesh.ts'
import type { Clock } from '../runtime/clock.ts'
import { every } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { peerChain } from '../runtime/tls-server.ts'
import { describeRule } from '../spiffe/deny-list.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { type Matcher, matchAny } from '../spiffe/match.ts'
import type { Identities, Identity } from './identity.ts'
import type { Limits } from './limits.ts'

/** Something in flight that was allowed, and how to end it once it is not any more. */
export interface Exchange {
  readonly request: Request
  /** of the authorizers that were asked about it */
  readonly consents?: Consents | undefined
  /** by which its path was read; the mesh's where nothing is said */
  readonly backend?: Backend | undefined
  end(): void
}

export interface Connection {
  /** The peer, verified now or a moment ago; undefined for one in the clear. Throws ERR_UNTRUSTED. */
  peer(): SpiffeId | undefined
  /** Keeps `exchange` under watch until the returned function is called. */
  begin(exchange: Exchange): () => void
  /** Counts as busy until the returned function is called: something is being decided. */
  hold(): () => void
  readonly busy: boolean
  /** asked to end as soon as nothing is in flight */
  readonly retired: boolean
}

/** One of mutual TLS: its peer has a name. */
export interface VerifiedConnection extends Connection {
  peer(): SpiffeId
}

export type Retirement = 'age' | 'shutdown'

export interface ConnectionOptions {
  /** whom to accept besides being verified */
  readonly match?: Matcher
  /** milliseconds */
  readonly maxAge: number
  /** Ends the connection at once. */
  readonly end?: () => void
  /** Called once, to end the connection gracefully. */
  readonly onRetire?: (why: Retirement, connection: Connection) => void
}

export interface Connections extends AsyncDisposable {
  add(socket: TLSSocket, options: ConnectionOptions): VerifiedConnection
  /** One without TLS: decided again as others are, with nothing to verify. */
  addPlain(socket: Socket, options: Omit<ConnectionOptions, 'match'>): Connection
  readonly size: number
}

export interface ConnectionsOptions {
  readonly identities: Identities
  readonly mesh: Mesh
  readonly tally: Tally
  readonly clock: Clock
  readonly log: Log
  readonly limits: Limits
}

interface Entry<Peer extends SpiffeId | undefined> extends Connection {
  peer(): Peer
  /** once a second, and when the identity, the bundles or the deny-list changed */
  recheck(): void
  /** when the policies changed */
  reconsider(): void
  retire(why: Retirement): void
  destroy(): void
}

const noIdentity = () => new IdentityError('ERR_UNTRUSTED', 'this side has no identity at present')

/** Verifies again only when the answer of before says nothing any more. */
function peerOf(socket: TLSSocket, match: Matcher, options: ConnectionsOptions): () => SpiffeId {
  const { identities, mesh, clock } = options
  const chain = peerChain(socket)
  let seen: { identity: Identity; peer: VerifiedPeer } | undefined
  return () => {
    const identity = identities.current()
    if (identity === undefined) throw noIdentity()
    if (seen?.identity !== identity || clock.now() >= seen.peer.until) {
      const peer = identity.verify(chain)
      const mismatch = match(peer.id)
      if (mismatch !== undefined) throw new IdentityError('ERR_UNTRUSTED', mismatch)
      seen = { identity, peer }
    }
    const denial = mesh.current().denyList.against(seen.peer, clock.now())
    if (denial !== undefined) throw new IdentityError('ERR_UNTRUSTED', describeRule(denial))
    return seen.peer.id
  }
}

/** In the clear there is nobody to verify; without an identity of its own this side takes no one all the same. */
function nobodyOf({ identities }: ConnectionsOptions): () => undefined {
  return () => {
    if (identities.current() === undefined) throw noIdentity()
    return undefined
  }
}

function entryOf<Peer extends SpiffeId | undefined>(
  { socket, peer }: { readonly socket: Socket; readonly peer: () => Peer },
  its: ConnectionOptions,
  options: ConnectionsOptions,
): Entry<Peer> {
  const { maxAge, end = () => void socket.destroy() } = its
  const { onRetire = () => {} } = its
  const { mesh, tally, clock, log } = options
  /** and when each was decided */
  const exchanges = new Map<Exchange, number>()
  const born = clock.monotonic()
  let [held, retired] = [0, false]

  const entry: Entry<Peer> = {
    peer,
    begin(exchange) {
      exchanges.set(exchange, clock.now())
      return () => void exchanges.delete(exchange)
    },
    hold() {
      held++
      return () => void held--
    },
    get busy() {
      return held + exchanges.size > 0
    },
    get retired() {
      return retired
    },
    recheck() {
      try {
        peer()
      } catch (error) {
        log.warn({ reason: explain(error) }, 'connection ended: peer not trusted any more')
        return entry.destroy()
      }
      if (clock.monotonic() - born >= maxAge) entry.retire('age')
    },
    reconsider() {
      const { policies } = mesh.current()
      for (const [exchange, at] of [...exchanges]) {
        const { request, consents, backend } = exchange
        const { id, port } = request.destination
        // its labels may be others by now
        const destination =
          id === undefined || port === undefined
            ? request.destination
            : destinationAt(mesh, { id, port })
        const again = { ...request, destination }
        if (!tally.stillAllows(policies.behind(backend), again, { at, consents })) exchange.end()
      }
    },
    retire(why) {
      if (retired && why === 'age') return
      retired = true
      onRetire(why, entry)
    },
    destroy: end,
  }
  return entry
}

/** Disposing it drains: everything is retired, and destroyed when it does not end in time. */
export function createConnections(options: ConnectionsOptions): Connections {
  const { identities, mesh, clock, limits } = options
  const live = new Set<Entry<SpiffeId | undefined>>()
  let emptied = () => {}
  const each = (step: (entry: Entry<SpiffeId | undefined>) => void) => {
    for (const entry of [...live]) step(entry)
  }
  const recheckAll = () => each((entry) => entry.recheck())
  const stack = new AsyncDisposableStack()
  stack.use(every(clock, limits.recheck, recheckAll))
  stack.use(identities.subscribe(recheckAll))
  const considered = () =>
    each((entry) => {
      entry.recheck()
      entry.reconsider()
    })
  stack.use(mesh.subscribe(considered))
  stack.defer(() => each((entry) => entry.destroy()))

  async function drain(): Promise<void> {
    each((entry) => entry.retire('shutdown'))
    const empty = Promise.withResolvers<void>()
    emptied = empty.resolve
    if (live.size === 0) return
    const patience = new AbortController()
    const late = clock.sleep(limits.drain, { signal: patience.signal }).catch(() => {})
    await Promise.race([empty.promise, late])
    patience.abort()
  }

  function keep<Peer extends SpiffeId | undefined>(
    socket: Socket,
    peer: () => Peer,
    its: ConnectionOptions,
  ): Entry<Peer> {
    const entry = entryOf({ socket, peer }, its, options)
    live.add(entry)
    socket.once('close', () => {
      live.delete(entry)
      if (live.size === 0) emptied()
    })
    return entry
  }

  return {
    add: (socket, its) => keep(socket, peerOf(socket, its.match ?? matchAny, options), its),
    addPlain: (socket, its) => keep(socket, nobodyOf(options), its),
    get size() {
      return live.size
    },
    async [Symbol.asyncDispose]() {
      await drain()
      await stack.disposeAsync()
    },
  }
}

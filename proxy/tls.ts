// Mutual TLS to and from peers. `rejectUnauthorized: false` and the empty `checkServerIdentity` stand
// here because OpenSSL can neither choose roots by trust domain nor match a SPIFFE ID: each is beside
// the check that replaces it.
import { connect as connectTcp, isIP } from 'node:net'
import {
  connect,
  createSecureContext,
  createServer,
  type SecureContext,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
} from 'node:tls'
import type { Clock } from '../runtime/clock.ts'
import type { Address } from '../runtime/config.ts'
import { secureContext } from '../runtime/tls-server.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { VerifiedConnection } from './connections.ts'
import type { Identity } from './identity.ts'
import type { Limits } from './limits.ts'
import { type TlsSide, tlsSide } from './pipe.ts'
import { after } from './timer.ts'

/**
 * Everything a context is made of, passed again at each rotation. No roots: OpenSSL has no part in the
 * decision, and a list of them in the request would keep federated clients from answering.
 */
export function contextOptions({ svid }: Identity): SecureContextOptions {
  return { ...secureContext(svid), ca: [] }
}

/**
 * A server that is handed accepted sockets by `emit('connection')`. Whoever finishes the handshake is
 * given to `admit`, which has to verify the peer before a byte of it is read; a throw ends the
 * connection.
 */
export function inboundTls(
  identity: Identity,
  protocols: readonly string[],
  { limits, admit }: { readonly limits: Limits; readonly admit: (socket: TLSSocket) => void },
): Server {
  const server = createServer({
    ...contextOptions(identity),
    requestCert: true,
    // replaced by admit(), which verifies the chain against the bundle of the peer's trust domain
    rejectUnauthorized: false,
    handshakeTimeout: limits.handshake,
    ...(protocols.length === 0 ? {} : { ALPNProtocols: [...protocols] }),
  })
  server.on('secureConnection', admit)
  return server
}

const contexts = new WeakMap<Identity, SecureContext>()

function clientContext(identity: Identity): SecureContext {
  const known = contexts.get(identity)
  if (known !== undefined) return known
  const context = createSecureContext(contextOptions(identity))
  contexts.set(identity, context)
  return context
}

export interface OutboundOptions {
  readonly identity: Identity
  readonly protocols: readonly string[]
  readonly limits: Limits
  readonly clock: Clock
  /** Registers the connection; its `peer()` verifies chain and expected ID. */
  readonly register: (side: TlsSide) => VerifiedConnection
}

export interface VerifiedPeer {
  readonly side: TlsSide
  readonly id: SpiffeId
}

/**
 * A connection to a peer that has proven to be one of the expected: nothing was sent on it yet. Rejects
 * with ERR_UNTRUSTED or ERR_UNAVAILABLE.
 */
export function connectPeer(
  address: Address,
  { identity, protocols, limits, clock, register }: OutboundOptions,
): Promise<VerifiedPeer> {
  const { promise, resolve, reject } = Promise.withResolvers<VerifiedPeer>()
  const tcp = connectTcp({ ...address, allowHalfOpen: true, noDelay: true, keepAlive: true })
  const socket = connect({
    socket: tcp,
    servername: isIP(address.host) === 0 ? address.host : '',
    secureContext: clientContext(identity),
    // both replaced by register(side).peer() below, before the socket is given to anyone
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    ...(protocols.length === 0 ? {} : { ALPNProtocols: [...protocols] }),
  })
  const side = tlsSide(socket)
  const fail = (error: unknown) => {
    stopTimer()
    side.break()
    reject(error)
  }
  const where = `${address.host}:${address.port}`
  // of the whole: a peer that lets bytes trickle gets no more of it
  const stopTimer = after(clock, limits.connect, () =>
    fail(new IdentityError('ERR_UNAVAILABLE', `no answer from ${where} in time`)),
  )
  for (const it of [tcp, socket]) it.on('error', () => {})
  socket.once('close', () => {
    const cause = tcp.errored ?? socket.errored ?? new Error('the connection was closed')
    fail(new IdentityError('ERR_UNAVAILABLE', `cannot reach ${where}`, { cause }))
  })
  socket.once('secureConnect', () => {
    try {
      const id = register(side).peer()
      stopTimer()
      resolve({ side, id })
    } catch (error) {
      fail(error)
    }
  })
  return promise
}

// Connections over mutual TLS to a peer that has proven to be whom a matcher accepts.
import { isIP } from 'node:net'
import { connect, type SecureContext, type TLSSocket } from 'node:tls'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Matcher } from '../spiffe/match.ts'
import { clientContext, type TlsSource } from './credential.ts'
import { notReady } from './failure.ts'
import { admitPeer, peerOf, requireMatcher } from './peer.ts'
import { untilAborted } from './signals.ts'
import type { SvidPicker } from './x509-source.ts'

export interface ConnectOptions {
  readonly host: string
  readonly port: number
  /** who has to be there; there is no default */
  readonly accept: Matcher
  /** which of several identities to show; the default one when left out */
  readonly pick?: SvidPicker
  /** ALPN; none when left out */
  readonly protocols?: readonly string[]
  readonly clock?: Clock
  /** ends the wait for source and peer, not the connection */
  readonly signal?: AbortSignal
}

export interface TlsConnection {
  readonly socket: TLSSocket
  readonly peer: SpiffeId
}

/** How long source and peer are waited for when no signal ends it before. */
const patience = 30_000

function handshake(
  source: TlsSource,
  secureContext: SecureContext,
  { host, port, accept, protocols = [], clock = systemClock }: ConnectOptions,
): { socket: TLSSocket; done: Promise<TlsConnection> } {
  const { promise: done, resolve, reject } = Promise.withResolvers<TlsConnection>()
  const rules = { accept, clock }
  const socket = connect({
    host,
    port,
    servername: isIP(host) === 0 ? host : '',
    secureContext,
    // a host name says nothing about a SPIFFE ID
    checkServerIdentity() {
      try {
        peerOf(socket, source, rules)()
        return undefined
      } catch (error) {
        return error instanceof Error ? error : new Error(String(error))
      }
    },
    ...(protocols.length === 0 ? {} : { ALPNProtocols: [...protocols] }),
  })
  socket.once('error', reject)
  socket.once('close', () => reject(new Error('the connection was closed')))
  socket.once('secureConnect', () => {
    try {
      resolve({ socket, peer: admitPeer(socket, source, rules) })
    } catch (error) {
      reject(error)
    }
  })
  return { socket, done }
}

/**
 * A connection on which nothing was sent yet. Rejects with ERR_UNTRUSTED when somebody else is there,
 * ERR_UNAVAILABLE when nobody is, ERR_NO_IDENTITY when this side has nothing to show.
 */
export async function connectTls(
  source: TlsSource,
  options: ConnectOptions,
): Promise<TlsConnection> {
  const { host, port, accept, pick, clock = systemClock, signal } = options
  requireMatcher(accept)
  const limit = AbortSignal.timeout(patience)
  const ended = signal === undefined ? limit : AbortSignal.any([signal, limit])
  await source.ready(ended).catch((error: unknown) => {
    signal?.throwIfAborted()
    throw notReady(source, error)
  })
  const context = clientContext(source, { clock, ...(pick === undefined ? {} : { pick }) })
  if (context === undefined) {
    throw new IdentityError('ERR_NO_IDENTITY', 'this side has no such identity at present')
  }
  const { socket, done } = handshake(source, context, options)
  done.catch(() => {})
  try {
    return await untilAborted(done, ended)
  } catch (cause) {
    socket.destroy()
    if (signal?.aborted || hasCode(cause)) throw cause
    const isPeer = Boolean(socket.authorizationError)
    throw isPeer
      ? new IdentityError('ERR_UNTRUSTED', `${host}:${port} is not trusted`, { cause })
      : new IdentityError('ERR_UNAVAILABLE', `cannot reach ${host}:${port}`, { cause })
  }
}

// Mutual TLS for connections that somebody else has accepted: who comes through is verified.
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Matcher } from '../spiffe/match.ts'
import { contextOptions, ownSvid, type TlsSource } from './credential.ts'
import { admitPeer, requireMatcher } from './peer.ts'
import type { SvidPicker } from './x509-source.ts'

export interface ServerOptions {
  /** whom to let in; there is no default */
  readonly accept: Matcher
  /** which of several identities to show; the default one when left out */
  readonly pick?: SvidPicker
  /** ALPN; none when left out */
  readonly protocols?: readonly string[]
  /** told of every connection that was refused, and why */
  readonly onRefusal?: (reason: unknown, from: string | undefined) => void
  readonly clock?: Clock
}

export interface Gate extends Disposable {
  /** Takes over an accepted connection of which nothing was read. */
  take(raw: Socket): void
}

const handshakeTimeout = 15_000

/** New handshakes use what the source says now. `serve` is given connections whose peer was accepted. */
export function createGate(
  source: TlsSource,
  { accept, pick, protocols = [], onRefusal = () => {}, clock = systemClock }: ServerOptions,
  serve: (socket: TLSSocket, peer: SpiffeId) => void,
): Gate {
  requireMatcher(accept)
  const showing = { clock, ...(pick === undefined ? {} : { pick }) }
  const server = createServer({
    ...contextOptions(source, showing),
    requestCert: true,
    handshakeTimeout,
    ...(protocols.length === 0 ? {} : { ALPNProtocols: [...protocols] }),
  })

  function admit(socket: TLSSocket): SpiffeId | undefined {
    try {
      return admitPeer(socket, source, { accept, clock })
    } catch (error) {
      onRefusal(error, socket.remoteAddress)
      socket.destroy()
      return undefined
    }
  }

  server.on('secureConnection', (socket) => {
    const peer = admit(socket)
    if (peer !== undefined) serve(socket, peer)
  })
  server.on('tlsClientError', (error, socket) => onRefusal(error, socket.remoteAddress))
  const subscription = source.subscribe(() =>
    server.setSecureContext(contextOptions(source, showing)),
  )
  return {
    take(raw) {
      if (ownSvid(source, showing) === undefined) {
        const reason = new IdentityError('ERR_NO_IDENTITY', 'this side has no identity at present')
        onRefusal(reason, raw.remoteAddress)
        raw.destroy()
        return
      }
      server.emit('connection', raw)
    },
    [Symbol.dispose]: () => subscription[Symbol.dispose](),
  }
}

// A gRPC server on node:http2: a listener, and what speaks on its connections.
import type tls from 'node:tls'
import { type Listen, startListener } from './listen.ts'
import { createGrpcSpeaker, type GrpcSpeakerOptions, type Speaking } from './speaker.ts'

export type { CallEvent } from './answer.ts'
export type { CallContext } from './service.ts'

export interface GrpcServer<P = unknown> extends Speaking<P>, AsyncDisposable {
  /** `host:port`, or the path of the unix socket */
  readonly address: string
  /** 0 on a unix socket */
  readonly port: number
  /** Replaces everything (setSecureContext): what is not passed again returns to its default. */
  setTls(options: tls.SecureContextOptions): void
}

export interface GrpcServerOptions<P> extends GrpcSpeakerOptions<P> {
  readonly listen: Listen
  /** ALPN is h2 always; sessions and tickets are the caller's business */
  readonly tls?: tls.TlsOptions
}

export async function startGrpcServer<P>(options: GrpcServerOptions<P>): Promise<GrpcServer<P>> {
  const speaker = createGrpcSpeaker(options)
  const listener = await startListener({
    listen: options.listen,
    tls: options.tls,
    connections: options.limits?.connections,
    accept: speaker.accept,
  })
  let draining: Promise<void> | undefined

  async function drain(): Promise<void> {
    const closed = new Promise<void>((resolve) => listener.server.close(() => resolve()))
    await speaker.drain()
    // connections that never finished their handshake, too
    for (const socket of listener.sockets) socket.destroy()
    await closed
  }
  const drainOnce = () => {
    draining ??= drain()
    return draining
  }

  return {
    address: listener.address,
    port: listener.port,
    get openStreams() {
      return speaker.openStreams
    },
    streams: speaker.streams,
    get connections() {
      return speaker.connections
    },
    setTls: listener.setTls,
    unread: speaker.unread,
    caughtUp: speaker.caughtUp,
    disconnect: speaker.disconnect,
    drain: drainOnce,
    [Symbol.asyncDispose]: drainOnce,
  }
}

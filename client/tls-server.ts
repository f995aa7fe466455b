// Servers that speak mutual TLS as this workload, rotate by themselves, and let in whom a matcher accepts.
import { once } from 'node:events'
import { createServer as createHttp, type RequestListener, type Server } from 'node:http'
import { createServer, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TlsSource } from './credential.ts'
import { createGate, type ServerOptions } from './tls-gate.ts'

export interface TlsServer extends AsyncDisposable {
  readonly port: number
}

export interface TlsServerOptions extends ServerOptions {
  readonly host: string
  /** 0 for one of the kernel's choice */
  readonly port: number
}

/** Calls `listener` with each connection whose peer was accepted. Disposing ends the connections. */
export async function startTlsServer(
  source: TlsSource,
  { host, port, ...options }: TlsServerOptions,
  listener: (socket: TLSSocket, peer: SpiffeId) => void,
): Promise<TlsServer> {
  const sockets = new Set<Socket>()
  using starting = new DisposableStack()
  const gate = starting.use(createGate(source, options, listener))
  const server = createServer((raw) => {
    sockets.add(raw)
    raw.once('close', () => sockets.delete(raw))
    gate.take(raw)
  })
  server.listen(port, host)
  await once(server, 'listening')
  const started = starting.move()
  const bound = server.address()
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    async [Symbol.asyncDispose]() {
      if (!server.listening) return
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
      started.dispose()
    },
  }
}

/**
 * An HTTP/1.1 server, not listening yet, whose requests come over mutual TLS only: `peerIdOf(request.socket)`
 * says from whom.
 */
export function createHttpServer(
  source: TlsSource,
  options: ServerOptions,
  handler: RequestListener,
): Server {
  const server = createHttp(handler)
  // what would read plain HTTP from an accepted connection now reads what comes out of TLS
  const readers = server.listeners('connection')
  server.removeAllListeners('connection')
  const gate = createGate(source, { ...options, protocols: ['http/1.1'] }, (socket) => {
    for (const read of readers) Reflect.apply(read, server, [socket])
  })
  server.on('connection', (raw) => gate.take(raw))
  server.once('close', () => gate[Symbol.dispose]())
  return server
}

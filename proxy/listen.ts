// Accepting connections: bounded, counted, and let go of together.
import { createServer, type Socket } from 'node:net'
import type { Address } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Limits } from './limits.ts'

export interface Accepting {
  readonly port: number
  /** the accepted sockets that are still open */
  readonly sockets: ReadonlySet<Socket>
  stop(): void
}

/** Starts to listen. Throws ERR_UNAVAILABLE with the address. */
export async function listen(
  { host, port }: Address,
  limits: Limits,
  accept: (socket: Socket) => void,
): Promise<Accepting> {
  const sockets = new Set<Socket>()
  const options = { allowHalfOpen: true, noDelay: true, keepAlive: true }
  const server = createServer({ ...options, keepAliveInitialDelay: 60_000 }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
    accept(socket)
  })
  server.maxConnections = limits.connections
  const listening = Promise.withResolvers<void>()
  server.once('error', listening.reject)
  server.listen(port, host, listening.resolve)
  try {
    await listening.promise
  } catch (cause) {
    throw new IdentityError('ERR_UNAVAILABLE', `cannot listen on ${host}:${port}`, { cause })
  }
  const bound = server.address()
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    sockets,
    stop: () => void server.close(),
  }
}

// Where a server listens: TCP, TLS or a unix socket whose stale file is taken away first.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, renameSync, rmSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'
import { admitInTurn, type HandshakeLimits } from './handshakes.ts'

export type Listen =
  | {
      readonly path: string
      readonly mode: number
      /**
       * Takes the path from whoever has it, and leaves it there at the end: programs that connect while one
       * server follows another find one of them.
       */
      readonly takesOver?: boolean
    }
  | { readonly host: string; readonly port: number }

export interface Listener {
  readonly server: net.Server
  readonly address: string
  readonly port: number
  /** accepted connections, those still shaking hands too */
  readonly sockets: ReadonlySet<net.Socket>
  readonly setTls: (options: tls.SecureContextOptions) => void
}

export interface ListenOptions {
  readonly listen: Listen
  readonly tls: tls.TlsOptions | undefined
  readonly connections: number | undefined
  readonly handshakes?: HandshakeLimits | undefined
  /** each connection that is ready to speak HTTP/2 */
  readonly accept: (socket: net.Socket | tls.TLSSocket) => void
}

// A peer that vanished without a word is noticed by the kernel's probes.
const shared = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 } as const
const handshakeTimeout = 10_000
// who connects while this many wait is refused by the kernel, which has its own limit (somaxconn)
const backlog = 4096

function makeServer(options: ListenOptions): {
  server: net.Server
  setTls: Listener['setTls']
} {
  if (options.tls === undefined) {
    const setTls = () => {
      throw new TypeError('this server has no TLS')
    }
    return { server: net.createServer(shared, options.accept), setTls }
  }
  const server = tls.createServer({ handshakeTimeout, ...options.tls, ALPNProtocols: ['h2'] })
  server.on('secureConnection', (socket) => {
    if (socket.alpnProtocol === 'h2') options.accept(socket)
    else socket.destroy()
  })
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  const front = admitInTurn(server, shared, options.handshakes)
  return { server: front, setTls: (next) => server.setSecureContext(next) }
}

/** Whether nobody answers at `path`: the file is left over from a server that was killed. */
async function isStale(path: string): Promise<boolean> {
  const socket = net.connect(path)
  try {
    await once(socket, 'connect')
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED'
  } finally {
    socket.destroy()
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EADDRINUSE'
}

async function bind(server: net.Server, listen: Listen): Promise<void> {
  const listening = once(server, 'listening')
  server.listen({ ...listen, backlog })
  // the file exists as soon as listen() returns; nobody is accepted before the event loop turns
  if ('path' in listen && server.listening) chmodSync(listen.path, listen.mode)
  await listening
}

/**
 * Node takes away at the end what it has bound: under another name, or the server before would take away the
 * socket of the one after it.
 */
async function bindOver(server: net.Server, path: string, mode: number): Promise<void> {
  const aside = `${path}.${randomBytes(3).toString('hex')}`
  await bind(server, { path: aside, mode })
  renameSync(aside, path)
}

async function open(server: net.Server, listen: Listen): Promise<void> {
  if ('path' in listen && listen.takesOver) return bindOver(server, listen.path, listen.mode)
  try {
    await bind(server, listen)
  } catch (error) {
    if (!('path' in listen) || !isTaken(error) || !(await isStale(listen.path))) throw error
    rmSync(listen.path, { force: true })
    await bind(server, listen)
  }
}

function addressOf(server: net.Server, listen: Listen): { address: string; port: number } {
  if ('path' in listen) return { address: listen.path, port: 0 }
  const at = server.address()
  if (at === null || typeof at === 'string') return { address: at ?? '', port: 0 }
  const host = at.family === 'IPv6' ? `[${at.address}]` : at.address
  return { address: `${host}:${at.port}`, port: at.port }
}

export async function startListener(options: ListenOptions): Promise<Listener> {
  const { server, setTls } = makeServer(options)
  const sockets = new Set<net.Socket>()
  server.on('connection', (socket: net.Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  if (options.connections !== undefined) server.maxConnections = options.connections
  await open(server, options.listen)
  // accept() failing for want of file descriptors is no reason to die
  server.on('error', () => {})
  return { server, ...addressOf(server, options.listen), sockets, setTls }
}

// A sidecar's data path for tests, with what it hangs on in reach.
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo, Server, Socket, TcpSocketConnectOpts } from 'node:net'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import type { OwnSvid } from '../../client/x509-source.ts'
import { createMesh, type Mesh, type MeshState } from '../../decisions/mesh.ts'
import { createTally, type Tally } from '../../decisions/tally.ts'
import type { Limits } from '../../proxy/limits.ts'
import { type Serving, serve } from '../../proxy/serve.ts'
import { type ProxySpec, proxySpec } from '../../proxy-spec/spec.ts'
import { type Clock, systemClock } from '../../runtime/clock.ts'
import { createLog } from '../../runtime/log.ts'
import { keyPairToPem, toPem } from '../../spiffe/pem.ts'
import type { TestAuthority, TestSource } from './mesh.ts'

export interface Sidecar extends Serving {
  readonly mesh: Mesh
  readonly tally: Tally
  /** what was logged so far */
  readonly lines: readonly string[]
  /** of the first listener */
  readonly port: number
}

export interface SidecarOptions {
  readonly source: TestSource
  readonly state: MeshState
  readonly limits?: Partial<Limits>
  readonly clock?: Clock
}

const minute = 60_000
/** Nothing is given up because this machine stands still for seconds; who tests that sets its own. */
const patient = { handshake: minute, requestHeaders: minute, connect: minute }

/** The same for outbound listeners, which say it in the spec. */
function patiently({ outbound, ...rest }: ProxySpec): ProxySpec {
  const connectTimeout = (ms: number) => (ms === 5_000 ? minute : ms)
  const all = outbound.map((it) => ({ ...it, connectTimeout: connectTimeout(it.connectTimeout) }))
  return { ...rest, outbound: all }
}

/** `spec` is what a proxy.yaml would say. */
export async function startSidecar(spec: unknown, options: SidecarOptions): Promise<Sidecar> {
  const { source, state, limits = {}, clock = systemClock } = options
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const log = createLog({ name: 'proxy', level: 'debug', destination })
  const mesh = createMesh()
  mesh.put(state)
  const tally = createTally(clock)
  const own = { ...patient, recheck: 20, drain: 1000, ...limits }
  const serving = await serve(patiently(proxySpec.parse(spec)), {
    source,
    mesh,
    tally,
    log,
    clock,
    limits: own,
  })
  return { ...serving, mesh, tally, lines, port: serving.listeners[0]?.port ?? 0 }
}

export interface App extends AsyncDisposable {
  readonly port: number
  readonly server: Server
}

export async function listening(server: Server): Promise<App> {
  const sockets = new Set<{ destroy(): void }>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new Error('no port')
  const { port }: AddressInfo = bound
  return {
    port,
    server,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

/** It ends no kept connection while a request may be on its way: a POST is not asked again. */
export const startApp = (handler: RequestListener) =>
  listening(createServer({ keepAliveTimeout: minute }, handler))

/** What a peer presents and whom it expects, for `tls.connect`. */
export function peerOptions(
  port: number,
  svid: OwnSvid | undefined,
  server: { readonly authority: TestAuthority; readonly id: string },
): ConnectionOptions {
  const own = svid && keyPairToPem(svid)
  return {
    host: '127.0.0.1',
    port,
    ...own,
    ca: server.authority.bundle.authorities.map(({ der }) => toPem(der, 'CERTIFICATE')),
    checkServerIdentity: (_, peer) =>
      peer.subjectaltname === `URI:${server.id}`
        ? undefined
        : new Error(`met ${peer.subjectaltname}`),
  }
}

export type Dialled = ConnectionOptions & Pick<TcpSocketConnectOpts, 'localAddress'>

export async function dial(options: Dialled): Promise<TLSSocket> {
  const socket = connect(options)
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

/** All bytes until the other side ends or breaks the connection. */
export async function untilClosed(socket: Socket): Promise<string> {
  const parts: Buffer[] = []
  socket.on('data', (part) => parts.push(part))
  socket.on('error', () => {})
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return Buffer.concat(parts).toString('latin1')
}

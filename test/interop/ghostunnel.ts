// ghostunnel, whose certificates come from our agent's Workload API: plain TCP ends, mutual TLS between them,
// who is not allowed refused by either side, and on through an agent that restarts and rotations.
import { copyFileSync, realpathSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { connectTls } from '../../client/tls-connect.ts'
import { startTlsServer } from '../../client/tls-server.ts'
import { startX509Source, type X509Source } from '../../client/x509-source.ts'
import { explain } from '../../spiffe/errors.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { matchId } from '../../spiffe/match.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { freePorts } from '../support/ports.ts'
import { until } from './eventually.ts'
import { type RunningGhostunnel, startGhostunnel } from './ghostunnel-process.ts'
import { buildGo } from './go.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const idOf = (name: string) => `spiffe://${trustDomain}/${name}`
const accept = (name: string) => matchId(parseSpiffeId(idOf(name)))
const patience = () => AbortSignal.timeout(120_000)
const notAllowed = 'unauthorized: invalid principal, or principal not allowed'
/** of each side, after the agent's restart */
const rotations = 2

/** What comes back for `bytes` over a new connection: all of them, or what there was until it was closed. */
async function through(port: number, bytes: Buffer): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  const got: Buffer[] = []
  let length = 0
  const socket = connect({ host: '127.0.0.1', port, signal: patience() })
  socket.on('error', (error) =>
    // what was written to somebody who had gone already
    'code' in error && error.code === 'ECONNRESET' ? undefined : reject(error),
  )
  socket.on('data', (part) => {
    got.push(part)
    length += part.length
    if (length >= bytes.length) socket.destroy()
  })
  socket.on('close', () => resolve(Buffer.concat(got)))
  socket.write(bytes)
  return await promise
}

async function carries(port: number, size: number): Promise<void> {
  const bytes = Buffer.alloc(size, `${port} ${size} `)
  const back = await through(port, bytes)
  if (!back.equals(bytes)) throw new Error(`${back.length} of ${size} bytes came back`)
}

/** Our own ends: one that gives plain bytes back, one that says over TLS which certificate its client shows. */
async function startEnds(source: X509Source) {
  await using starting = new AsyncDisposableStack()
  const echo = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.pipe(socket)
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => echo.once('listening', resolve))
  starting.defer(() => void echo.close())
  const bound = echo.address()
  const refusals: string[] = []
  const teller = starting.use(
    await startTlsServer(
      source,
      {
        ...{ host: '127.0.0.1', port: 0, accept: accept('client') },
        onRefusal: (reason) => void refusals.push(explain(reason)),
      },
      (socket) => void socket.end(socket.getPeerCertificate().serialNumber),
    ),
  )
  const started = starting.move()
  return {
    echo: typeof bound === 'object' && bound !== null ? bound.port : 0,
    teller: teller.port,
    refusals,
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

type Ends = Awaited<ReturnType<typeof startEnds>>

interface Scene extends Ends {
  readonly node: TestNode
  readonly source: X509Source
  readonly log: (line: string) => void
  /** Starts the copy of ghostunnel that has this identity. */
  start(name: string, mode: 'client' | 'server', ...args: string[]): Promise<RunningGhostunnel>
}

interface Tunnels {
  readonly server: RunningGhostunnel
  /** of its ends: plain, to the server's TLS, to its plain target */
  readonly tunnel: RunningGhostunnel
  /** to our own TLS server */
  readonly told: RunningGhostunnel
}

async function refusesOthers(scene: Scene, { server }: Tunnels): Promise<void> {
  const { log, start } = scene
  const target = ['--target', `127.0.0.1:${server.port}`]
  const wanted = (name: string) => ['--verify-uri', idOf(name)]
  await using other = await start('other', 'client', ...target, ...wanted('server'))
  const said = server.line(notAllowed)
  const back = await through(other.port, Buffer.from('hello'))
  if (back.length > 0) throw new Error('a client that is not allowed was let in')
  log(`ok a client of another identity is refused (${await said})`)
  await using choosy = await start('client', 'client', ...target, ...wanted('somebody-else'))
  const refused = choosy.line(notAllowed)
  const none = await through(choosy.port, Buffer.from('hello'))
  if (none.length > 0) throw new Error('a server that is not wanted was spoken to')
  log(`ok a server of another identity is refused (${await refused})`)
}

/** The serials of the certificates that server and client show over new connections. */
async function shown({ source }: Scene, { server, told }: Tunnels) {
  const { socket } = await connectTls(source, {
    ...{ host: '127.0.0.1', port: server.port, accept: accept('server'), signal: patience() },
  })
  const { serialNumber } = socket.getPeerCertificate()
  socket.destroy()
  const client = await through(told.port, Buffer.alloc(1000, ' '))
  if (client.length === 0) throw new Error('the client was not told its serial')
  return { server: serialNumber, client: String(client) }
}

/** A connection that stays open; `speak` sends through it and waits for the same. */
function hold(port: number) {
  const socket = connect({ host: '127.0.0.1', port })
  const parts = socket[Symbol.asyncIterator]()
  return {
    async speak(): Promise<void> {
      socket.write('still here')
      const { value } = await parts.next()
      if (String(value) !== 'still here') throw new Error(`the held connection gave ${value}`)
    },
    [Symbol.dispose]: () => void socket.destroy(),
  }
}

async function throughRotations(scene: Scene, tunnels: Tunnels): Promise<void> {
  using held = hold(tunnels.tunnel.port)
  await held.speak()
  const serials = { server: new Set<string>(), client: new Set<string>() }
  let connections = 0
  await until(`${rotations} rotations of either side`, async () => {
    await carries(tunnels.tunnel.port, 1000)
    const { server, client } = await shown(scene, tunnels)
    serials.server.add(server)
    serials.client.add(client)
    connections += 3
    return Math.min(serials.server.size, serials.client.size) > rotations
  })
  await held.speak()
  scene.log(
    `ok ${serials.server.size} certificates of the server, ${serials.client.size} of the client, ` +
      `${connections} connections, none failed; one has been there all the time`,
  )
}

async function walk(scene: Scene): Promise<void> {
  const { node, log, start, echo, teller, refusals } = scene
  const allow = ['client', 'probe'].flatMap((name) => ['--allow-uri', idOf(name)])
  await using server = await start('server', 'server', '--target', `127.0.0.1:${echo}`, ...allow)
  const [target, verify] = [`127.0.0.1:${server.port}`, ['--verify-uri', idOf('server')]]
  await using tunnel = await start('client', 'client', '--target', target, ...verify)
  const ours = [`127.0.0.1:${teller}`, '--verify-uri', idOf('probe')]
  await using told = await start('client', 'client', '--target', ...ours)
  for (const size of [1, 1000, 4 << 20]) await carries(tunnel.port, size)
  log('ok carries a byte, 1000, and 4 MiB, there and back')
  const tunnels = { server, tunnel, told }
  await refusesOthers(scene, tunnels)
  await node.restartAgent()
  await throughRotations(scene, tunnels)
  if (refusals.length > 0) throw new Error(`our server refused: ${refusals.join('; ')}`)
}

async function run({ log }: Surroundings): Promise<Outcome> {
  const tool = 'github.com/ghostunnel/ghostunnel'
  const built = await buildGo('ghostunnel', { log }, { module: 'ghostunnel', tool, cgo: true })
  if (built.kind === 'skipped') return built
  await using node = await startNode({ svidLifetime: '30s' })
  const endpoint = { kind: 'unix', path: node.agent.socket } as const
  const programOf = (name: string) => join(node.folder, `ghostunnel-${name}`)
  // copies, for the path is what makes them one workload or another
  for (const name of ['server', 'client', 'other']) {
    copyFileSync(built.path, programOf(name))
    await node.register(`/${name}`, [`unix:path:${realpathSync(programOf(name))}`])
  }
  await node.register('/probe', [`unix:path:${realpathSync(process.execPath)}`])
  await using source = startX509Source(endpoint)
  await source.ready(patience())
  await using ends = await startEnds(source)
  const start: Scene['start'] = async (name, mode, ...args) => {
    const [port = 0] = await freePorts(1)
    const api = ['--use-workload-api-addr', `unix://${endpoint.path}`]
    const listen = ['--listen', `127.0.0.1:${port}`]
    return await startGhostunnel(programOf(name), port, [mode, ...api, ...listen, ...args])
  }
  await walk({ ...ends, node, source, log, start })
  return { kind: 'ok' }
}

export const ghostunnel: Interop = { name: 'ghostunnel', run }

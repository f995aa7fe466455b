// Our Node library and go-spiffe, two workloads of one agent: each is server and client of the other,
// through two rotations of both.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { realpathSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { createFetch, type Fetch } from '../../client/fetch.ts'
import { type JwtSource, startJwtSource } from '../../client/jwt-source.ts'
import { peerIdOf } from '../../client/peer.ts'
import { connectTls } from '../../client/tls-connect.ts'
import { createHttpServer, startTlsServer } from '../../client/tls-server.ts'
import { startX509Source, type X509Source } from '../../client/x509-source.ts'
import { hasCode } from '../../spiffe/errors.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { matchId } from '../../spiffe/match.ts'
import { startNode, trustDomain } from '../support/node.ts'
import { buildGo } from './go.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const ours = parseSpiffeId(`spiffe://${trustDomain}/node`)
const theirs = parseSpiffeId(`spiffe://${trustDomain}/go`)
const accept = matchId(theirs)
const rotations = 2
const patience = () => AbortSignal.timeout(120_000)

function expectSame(what: string, found: unknown, wanted: unknown): void {
  if (found !== wanted) throw new Error(`${what}: ${found}, not ${wanted}`)
}

/** The Go program: told a line, it answers one. */
async function startGo(path: string, socket: string) {
  const child = spawn(path, ['-socket', `unix://${socket}`, '-peer', ours], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  async function next(): Promise<string> {
    const { value = 'nothing any more' } = await lines.next()
    return value
  }
  const [word, tls = '', http = ''] = (await next()).split(' ')
  expectSame('go-spiffe starts', word, 'listening')
  async function tell(...words: readonly string[]): Promise<string> {
    child.stdin.write(`${words.join(' ')}\n`)
    return await next()
  }
  return {
    tls: { host: '127.0.0.1', port: Number(tls.split(':')[1]) },
    http: `https://${http}`,
    tell,
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit')
      child.stdin.end()
      await ended
    },
  }
}

type Go = Awaited<ReturnType<typeof startGo>>

/** Our servers: one answers lines, one HTTP. */
async function startServers(source: X509Source) {
  await using starting = new AsyncDisposableStack()
  const refusals: unknown[] = []
  // a client that does not want us sends an alert: that is its decision, not ours
  const onRefusal = (reason: unknown) => {
    if (hasCode(reason)) refusals.push(reason)
  }
  const held = Promise.withResolvers<void>()
  const tls = starting.use(
    await startTlsServer(
      source,
      { host: '127.0.0.1', port: 0, accept, onRefusal },
      (socket, peer) => {
        const { serialNumber } = socket.getPeerCertificate()
        socket.on('data', (line) => {
          if (String(line) === 'held\n')
            socket.on('error', (why) => hasCode(why, 'ERR_UNTRUSTED') && held.resolve())
          socket.write(`${String(line).trim()} from ${peer} ${serialNumber.toLowerCase()}\n`)
        })
      },
    ),
  )
  const http = createHttpServer(source, { accept, onRefusal }, (request, response) => {
    response.write(`${request.method} ${request.url} `)
    request.on('data', (part) => response.write(part))
    request.on('end', () => response.end(` from ${peerIdOf(request.socket)}`))
  })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  starting.defer(() => {
    http.closeAllConnections()
    http.close()
  })
  const bound: AddressInfo | string | null = http.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  const started = starting.move()
  return {
    ...{ tls: `127.0.0.1:${tls.port}`, http: `127.0.0.1:${port}`, refusals, held: held.promise },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

interface Round {
  readonly source: X509Source
  readonly tokens: JwtSource
  readonly fetch: Fetch
  readonly go: Go
  readonly servers: Awaited<ReturnType<typeof startServers>>
}

/** We are the client. Gives the serial that go-spiffe shows. */
async function askThem({ source, fetch, go }: Round): Promise<string> {
  const { socket, peer } = await connectTls(source, { ...go.tls, accept, signal: patience() })
  expectSame('their ID', peer, theirs)
  socket.write('hello\n')
  const [answer]: unknown[] = await once(socket, 'data')
  expectSame('their answer', String(answer), `hello from ${ours}\n`)
  const { serialNumber } = socket.getPeerCertificate()
  socket.destroy()
  const response = await fetch(`${go.http}/node`, { accept, method: 'POST', body: 'body' })
  expectSame('their HTTP', await response.text(), `POST /node body from ${ours}`)
  return serialNumber.toLowerCase()
}

/** They are the client. Gives the serials that we show and see. */
async function beAsked({ source, go, servers }: Round): Promise<string> {
  const shown = source.svid()?.serial.replace(/^0+/, '')
  const [ok, hello, from, id, seen = ''] = (await go.tell('dial', servers.tls)).split(' ')
  expectSame('our TLS', [ok, hello, from, id].join(' '), `ok hello from ${theirs}`)
  const got = await go.tell('get', servers.http)
  expectSame('our HTTP', got, `ok 200 POST /go body from ${theirs} ${shown}`)
  const other = await go.tell('dial-other', servers.tls)
  if (!other.startsWith('error')) throw new Error(`our ID was taken for another: ${other}`)
  return seen
}

async function exchangeTokens({ tokens, go }: Round): Promise<void> {
  const { token } = await tokens.fetch(theirs, { signal: patience() })
  expectSame('our token there', await go.tell('verify', token, theirs), `ok ${ours}`)
  const [, foreign = ''] = (await go.tell('token', ours)).split(' ')
  expectSame('their token here', (await tokens.verify(foreign, ours)).id, theirs)
  expectSame('their token at the agent', (await tokens.validate(foreign, ours)).id, theirs)
}

async function refuseOthers({ source, go }: Round): Promise<void> {
  const other = matchId(parseSpiffeId(`spiffe://${trustDomain}/other`))
  const refused = await connectTls(source, { ...go.tls, accept: other }).then(
    () => 'accepted',
    (error: unknown) => String(Reflect.get(Object(error), 'code')),
  )
  expectSame('a server of another ID', refused, 'ERR_UNTRUSTED')
}

/** Resolves with the next change. */
function change(source: X509Source): Promise<void> {
  const changed = Promise.withResolvers<void>()
  const subscription = source.subscribe(() => {
    subscription[Symbol.dispose]()
    changed.resolve()
  })
  return changed.promise
}

async function throughRotations(round: Round, log: (line: string) => void): Promise<void> {
  const mine = new Set<string>()
  const shown = new Set<string>()
  const seen = new Set<string>()
  expectSame('held', await round.go.tell('hold', round.servers.tls), 'ok held')
  for (;;) {
    const changed = change(round.source)
    mine.add(round.source.svid()?.serial ?? '')
    shown.add(await askThem(round))
    seen.add(await beAsked(round))
    await exchangeTokens(round)
    log(`both directions, ${mine.size} SVIDs of ours, ${shown.size} of theirs`)
    if (Math.min(mine.size, shown.size, seen.size) > rotations) return
    await changed
  }
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const program = await buildGo('library', surroundings)
  if (program.kind === 'skipped') return program
  const { log } = surroundings
  await using node = await startNode({ svidLifetime: '30s' })
  await node.register('/go', [`unix:path:${program.path}`])
  await node.register('/node', [`unix:path:${realpathSync(process.execPath)}`])
  const endpoint = { kind: 'unix', path: node.agent.socket } as const
  await using source = startX509Source(endpoint)
  await using tokens = startJwtSource(endpoint)
  await source.ready(patience())
  using fetch = createFetch(source)
  await using servers = await startServers(source)
  await using go = await startGo(program.path, node.agent.socket)
  const round = { source, tokens, fetch, go, servers }
  await refuseOthers(round)
  log('a server of another ID is refused, before it hears anything')
  await throughRotations(round, log)
  await servers.held
  log('the connection of the first round was ended when its certificate was')
  expectSame('refused', servers.refusals.map(String).join('; '), '')
  return { kind: 'ok' }
}

export const library: Interop = { name: 'library', run }

// A node whose agent drives gRPC programs without proxies: a server, a client that it lets in and another one, each
// a process of its own identity, with the files of its SVID and a bootstrap.
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, linkSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { createClient } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { grpcBootstrap } from '../../agent/proxies/grpc/bootstrap.ts'
import { openTransport } from '../../client/transport.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { AgentAdmin, type AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { agentStatus } from './agent-status.ts'
import { testFolder } from './folder.ts'
import { startNode, type TestNode, trustDomain } from './node.ts'
import { freePorts } from './ports.ts'

export const parties = ['server', 'client', 'other'] as const
export type Party = (typeof parties)[number]

export const idOf = (party: Party | 'test') => `spiffe://${trustDomain}/ns/shop/sa/${party}`

/** How a program of one gRPC is started. */
export interface GrpcProgram {
  /** what runs it; linked under another name for each party, by which the agent tells them apart */
  readonly interpreter: string
  readonly script: string
  readonly environment: Readonly<Record<string, string>>
}

export interface Talker extends AsyncDisposable {
  /** Tells the program a line; resolves with what it answers. */
  tell(line: string): Promise<string>
}

export interface DrivenGrpc extends AsyncDisposable {
  readonly node: TestNode
  readonly ports: { readonly server: number; readonly wrong: number }
  /** A file of a party's set, as it is now. */
  file(party: Party, name: 'svid.pem' | 'key.pem' | 'bundle.pem'): Buffer
  /** Resolves when the program says that it is there. */
  start(party: Party, change?: (bootstrap: object) => object): Promise<Talker>
  /** Writes a spec anew. */
  edit(party: Party, spec: object): void
  apply(text: string): Promise<void>
  status(): Promise<AgentStatus>
}

function linked(from: string, to: string): string {
  try {
    linkSync(from, to)
  } catch {
    // another file system
    copyFileSync(from, to)
  }
  return to
}

type Child = ChildProcessByStdio<Writable, Readable, null>

/** Resolves with its first line. */
async function talkerOf(child: Child): Promise<Talker> {
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const gone = once(child, 'exit')
  const next = async (): Promise<string> => {
    const { value } = await lines.next()
    if (typeof value !== 'string') throw new Error('the program has ended')
    return value
  }
  const stop = async () => {
    child.stdin.end()
    const late = setTimeout(() => child.kill('SIGKILL'), 5_000)
    await gone
    clearTimeout(late)
  }
  const late = setTimeout(() => child.kill('SIGKILL'), 60_000)
  const first = await next().catch(() => 'it has ended, or says nothing for a minute')
  clearTimeout(late)
  if (first !== 'serving') {
    await stop()
    throw new Error(`the program does not start: ${first}`)
  }
  return {
    async tell(line) {
      child.stdin.write(`${line}\n`)
      return await next()
    },
    [Symbol.asyncDispose]: stop,
  }
}

const outbound = (name: string, to: object) => ({
  ...{ name, listen: '127.0.0.1:0', protocol: 'grpc', expect: [idOf('server')], ...to },
})

function specsOf(server: number, wrong: number): Readonly<Record<Party, object>> {
  const here = `127.0.0.1:${server}`
  return {
    server: { inbound: [{ name: 'echo', listen: here, protocol: 'grpc', forwardTo: here }] },
    client: {
      outbound: [
        outbound('echo', { service: 'echo', loadBalancing: 'round-robin' }),
        outbound('wrong', { destination: `127.0.0.1:${wrong}` }),
      ],
    },
    other: { outbound: [outbound('echo', { destination: here })] },
  }
}

type Own = (party: Party, name: string) => string

/** Specs and programs of all parties; gives what agent.yaml says of them. */
function writeParties(own: Own, { interpreter }: GrpcProgram, specs: ReturnType<typeof specsOf>) {
  for (const party of parties) {
    mkdirSync(own(party, ''))
    writeFileSync(own(party, 'spec.yaml'), stringify({ identity: idOf(party), ...specs[party] }))
    linked(interpreter, own(party, 'program'))
  }
  // anew for each: YAML would write the same one as an alias
  const files = () =>
    ['chain', 'key', 'bundle'].map((holds) => ({
      ...{ name: `${holds === 'chain' ? 'svid' : holds}.pem`, holds },
    }))
  return {
    proxies: parties.map((party) => ({ spec: own(party, 'spec.yaml'), driver: 'grpc' })),
    files: parties.map((party) => ({ id: idOf(party), folder: own(party, 'tls'), files: files() })),
  }
}

async function registerParties(node: TestNode, own: Own): Promise<void> {
  const uid = `unix:uid:${process.getuid?.()}`
  for (const party of parties)
    await node.register(`/ns/shop/sa/${party}`, [uid, `unix:path:${own(party, 'program')}`])
  await node.register('/ns/shop/sa/test', [uid, `unix:path:${process.execPath}`])
  await filesOf(node, own)
}

/** Resolves once the agent says that the files of every party are written. */
async function filesOf(node: TestNode, own: Own): Promise<void> {
  using admin = openTransport({ kind: 'unix', path: node.agent.adminSocket })
  const signal = AbortSignal.timeout(60_000)
  const statuses = createClient(AgentAdmin, admin.transport).watchStatus({}, { signal })
  for await (const { files } of statuses) {
    const written = new Set(files.flatMap((it) => (it.version === '' ? [] : it.folder)))
    if (parties.every((party) => written.has(own(party, 'tls')))) return
  }
  throw new Error('the agent ended')
}

interface Starting {
  readonly own: Own
  readonly socket: string
  readonly listen: string
  readonly change: (bootstrap: object) => object
}

async function startParty(
  party: Party,
  { script, environment }: GrpcProgram,
  { own, socket, listen, change }: Starting,
): Promise<Talker> {
  const bootstrap = grpcBootstrap({
    ...{ socket, refresh: 1, nodeId: party },
    chain: own(party, 'tls/current/svid.pem'),
    key: own(party, 'tls/current/key.pem'),
    roots: own(party, 'tls/current/bundle.pem'),
  })
  const file = own(party, 'bootstrap.json')
  writeFileSync(file, JSON.stringify(change(bootstrap)))
  const mode = party === 'server' ? ['server', listen, party] : ['client']
  const child = spawn(own(party, 'program'), [script, ...mode], {
    stdio: ['pipe', 'pipe', process.env.TEST_GRPC_DEBUG === undefined ? 'ignore' : 'inherit'],
    env: { ...process.env, ...environment, GRPC_XDS_BOOTSTRAP: file },
  })
  return await talkerOf(child)
}

export async function startDrivenGrpc(
  program: GrpcProgram,
  { svidLifetime = '1h' }: { readonly svidLifetime?: string } = {},
): Promise<DrivenGrpc> {
  await using starting = new AsyncDisposableStack()
  const folder = starting.use(testFolder()).path
  const [server = 0, wrong = 0] = await freePorts(2)
  const listen = `127.0.0.1:${server}`
  const own: Own = (party, name) => join(folder, party, name)
  const agent = {
    ...writeParties(own, program, specsOf(server, wrong)),
    services: { echo: [listen] },
  }
  const node = starting.use(await startNode({ svidLifetime, agent }))
  await registerParties(node, own)
  const started = starting.move()
  return {
    node,
    ports: { server, wrong },
    file: (party, name) => readFileSync(own(party, `tls/current/${name}`)),
    start: (party, change = (it) => it) =>
      startParty(party, program, { own, listen, change, socket: node.agent.socket }),
    edit: (party, spec) =>
      writeFileSync(own(party, 'spec.yaml'), stringify({ identity: idOf(party), ...spec })),
    async apply(text) {
      await createClient(Policies, node.local).applyPolicies({
        files: [{ name: 'test.yaml', text }],
      })
    },
    status: () => agentStatus(node.agent.adminSocket),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

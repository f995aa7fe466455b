// A node whose agent drives gRPC programs without proxies: a server, a client that it lets in and another one, each
// a process of its own identity, with the files of its SVID and a bootstrap.
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { createClient } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { grpcBootstrap } from '../../agent/proxies/grpc/bootstrap.ts'
import { openTransport } from '../../client/transport.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { AgentAdmin, type AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { systemClock } from '../../runtime/clock.ts'
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

const isThere = async (path: string) => {
  const signal = AbortSignal.timeout(60_000)
  while (!existsSync(path)) await systemClock.sleep(50, { signal })
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

export async function startDrivenGrpc(
  program: GrpcProgram,
  { svidLifetime = '1h' }: { readonly svidLifetime?: string } = {},
): Promise<DrivenGrpc> {
  await using starting = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-grpc-'))
  starting.defer(() => rmSync(folder, { recursive: true, force: true }))
  const [server = 0, wrong = 0] = await freePorts(2)
  const specs = specsOf(server, wrong)
  const own = (party: Party, name: string) => join(folder, party, name)
  for (const party of parties) {
    mkdirSync(join(folder, party))
    writeFileSync(own(party, 'spec.yaml'), stringify({ identity: idOf(party), ...specs[party] }))
    linked(program.interpreter, own(party, 'program'))
  }
  // anew for each: YAML would write the same one as an alias
  const files = () =>
    ['chain', 'key', 'bundle'].map((holds) => ({
      ...{ name: `${holds === 'chain' ? 'svid' : holds}.pem`, holds },
    }))
  const agent = {
    proxies: parties.map((party) => ({ spec: own(party, 'spec.yaml'), driver: 'grpc' })),
    files: parties.map((party) => ({ id: idOf(party), folder: own(party, 'tls'), files: files() })),
    services: { echo: [`127.0.0.1:${server}`] },
  }
  const node = starting.use(await startNode({ svidLifetime, agent }))
  const uid = `unix:uid:${process.getuid?.()}`
  for (const party of parties)
    await node.register(`/ns/shop/sa/${party}`, [uid, `unix:path:${own(party, 'program')}`])
  await node.register('/ns/shop/sa/test', [uid, `unix:path:${process.execPath}`])
  const current = (party: Party, name: string) => own(party, `tls/current/${name}`)
  for (const party of parties) await isThere(current(party, 'svid.pem'))
  const started = starting.move()
  return {
    node,
    ports: { server, wrong },
    file: (party, name) => readFileSync(current(party, name)),
    async start(party, change = (it) => it) {
      const bootstrap = grpcBootstrap({
        ...{ socket: node.agent.socket, refresh: 1, nodeId: party },
        chain: current(party, 'svid.pem'),
        key: current(party, 'key.pem'),
        roots: current(party, 'bundle.pem'),
      })
      const file = own(party, 'bootstrap.json')
      writeFileSync(file, JSON.stringify(change(bootstrap)))
      const mode = party === 'server' ? ['server', `127.0.0.1:${server}`, party] : ['client']
      const child = spawn(own(party, 'program'), [program.script, ...mode], {
        stdio: ['pipe', 'pipe', process.env.TEST_GRPC_DEBUG === undefined ? 'ignore' : 'inherit'],
        env: { ...process.env, ...program.environment, GRPC_XDS_BOOTSTRAP: file },
      })
      return await talkerOf(child)
    },
    edit: (party, spec) =>
      writeFileSync(own(party, 'spec.yaml'), stringify({ identity: idOf(party), ...spec })),
    async apply(text) {
      await createClient(Policies, node.local).applyPolicies({
        files: [{ name: 'test.yaml', text }],
      })
    },
    async status() {
      using admin = openTransport({ kind: 'unix', path: node.agent.adminSocket })
      return await createClient(AgentAdmin, admin.transport).getStatus({})
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

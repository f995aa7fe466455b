// A node whose authority and agent are processes, which are killed and go on from what they have on the disk.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { openTransport } from '../../client/transport.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { rootsOf } from './ca-client.ts'
import { castellan } from './command.ts'
import type { DrivingNode } from './driven-envoy.ts'
import { agentId, type NodeOptions, register, trustDomain } from './node.ts'
import { freePort } from './ports.ts'
import { type Program, programOf } from './program.ts'

export interface KillableNode extends DrivingNode {
  /** the agent's */
  readonly state: string
  /** of the agent, since its first start */
  readonly lines: readonly string[]
  /** Resolves once it listens. */
  startAuthority(): Promise<void>
  /** Resolves as soon as it has an identity, heard or not. */
  startAgent(): Promise<void>
  killAuthority(): Promise<void>
  killAgent(): Promise<void>
}

const caText = (port: number, { svidLifetime = '1h', ca = {} }: NodeOptions) =>
  stringify({
    ...{ trustDomain, state: 'ca', unlock: { keyFile: 'ca.key' }, svidLifetime },
    ...{ listen: `127.0.0.1:${port}`, operations: '127.0.0.1:0', development: true },
    ...ca,
  })

const agentText = (port: number, { agent = {} }: NodeOptions) =>
  stringify({
    ...{ trustDomain, authority: { address: `127.0.0.1:${port}`, bundle: 'bundle.pem' } },
    ...{ joinTokenFile: 'token', state: 'agent', socket: 'run/agent.sock' },
    adminSocket: 'admin/agent-admin.sock',
    ...agent,
  })

/** An authority that listens, and what an agent needs to join it. */
async function startAuthority(folder: string, port: number, options: NodeOptions) {
  const config = join(folder, 'ca.yaml')
  writeFileSync(config, caText(port, options))
  const { code, stderr } = await castellan(['ca', 'init', '--config', config])
  if (code !== 0) throw new Error(`ca init: ${stderr}`)
  const program = programOf('ca', 'run', '--config', config)
  await program.start('"ready"')
  return program
}

async function writeAgent(folder: string, port: number, options: NodeOptions): Promise<string> {
  const socket = join(folder, 'ca/ca.sock')
  using local = openTransport({ kind: 'unix', path: socket })
  const { value } = await createClient(Agent, local.transport).createJoinToken({
    ...{ ttl: 600, agentId },
  })
  writeFileSync(join(folder, 'token'), value)
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(socket))
  const config = join(folder, 'agent.yaml')
  writeFileSync(config, agentText(port, options))
  return config
}

function nodeOf(folder: string, authority: Program, agent: Program) {
  const { transport: local, [Symbol.dispose]: close } = openTransport({
    ...{ kind: 'unix', path: join(folder, 'ca/ca.sock') },
  })
  return {
    ...{ folder, local, close },
    agent: {
      socket: join(folder, 'run/agent.sock'),
      adminSocket: join(folder, 'admin/agent-admin.sock'),
    },
    state: join(folder, 'agent'),
    lines: agent.lines,
    register: register(local),
    startAuthority: () => authority.start('"ready"'),
    startAgent: () => agent.start('"ready"'),
    killAuthority: authority.kill,
    killAgent: agent.kill,
  }
}

/** Everything on loopback and in a temporary folder, from `castellan ca run` and `castellan agent run`. */
export async function startKillableNode(options: NodeOptions = {}): Promise<KillableNode> {
  await using starting = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-killable-'))
  starting.defer(() => rmSync(folder, { recursive: true, force: true }))
  const port = await freePort()
  const authority = starting.use(await startAuthority(folder, port, options))
  const config = await writeAgent(folder, port, options)
  const agent = starting.use(programOf('agent', 'run', '--config', config))
  await agent.start('connected to the authority')
  const { close, ...node } = nodeOf(folder, authority, agent)
  starting.defer(close)
  const started = starting.move()
  return { ...node, [Symbol.asyncDispose]: () => started.disposeAsync() }
}

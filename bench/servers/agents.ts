// Agents as processes of their own: ours, and a stock spire-agent, below either authority.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fromBinary } from '@bufbuild/protobuf'
import { X509SVIDResponseSchema } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { invite, writeAgentConfig } from '../../test/support/invited-agent.ts'
import { connectSoon, fetchX509Svid, subscribe } from '../agents/workload.ts'
import { type AuthorityProcess, startOurs } from './authorities.ts'
import { buildShipped } from './shipped.ts'
import { type Usage, usageOf } from './usage.ts'

/** An agent whose files are laid out: it can be started, killed and started again. */
export interface PreparedAgent {
  readonly program: string
  readonly args: readonly string[]
  readonly socket: string
  /** path of the ID that entries name as their parent */
  readonly parent: string
}

export interface AgentProcess extends Usage, AsyncDisposable {
  /** Without a chance to say goodbye. */
  kill(): Promise<void>
}

const trustDomain = 'example.org'

/** milliseconds */
const askAgain = 20

/** Our authority, and below it an agent of the program as it is shipped; `more` are further keys of agent.yaml. */
export async function prepareNode(place: string, stack: AsyncDisposableStack, more: object = {}) {
  const program = await buildShipped()
  const authority = stack.use(await startOurs(join(place, 'ca')))
  const folder = join(place, 'agent')
  mkdirSync(folder, { recursive: true })
  await invite(authority.socket, folder, '/ours')
  const config = writeAgentConfig(folder, authority.port, { logLevel: 'error', ...more })
  const prepared: PreparedAgent = {
    ...{ program, args: ['agent', 'run', '--config', config] },
    ...{ socket: join(folder, 'run/agent.sock'), parent: '/ours' },
  }
  return { authority, prepared }
}

/** `program` is a spire-agent. */
export async function prepareStockAgent(
  program: string,
  authority: AuthorityProcess,
  folder: string,
): Promise<PreparedAgent> {
  for (const part of ['data', 'run']) mkdirSync(join(folder, part), { recursive: true })
  const token = await invite(authority.socket, folder, '/stock')
  const socket = join(folder, 'run/api.sock')
  const config = join(folder, 'agent.conf')
  const text = `agent {
  data_dir = "${join(folder, 'data')}"
  log_level = "ERROR"
  server_address = "127.0.0.1"
  server_port = "${authority.port}"
  socket_path = "${socket}"
  trust_bundle_path = "${join(folder, 'bundle.pem')}"
  trust_domain = "${trustDomain}"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { directory = "${join(folder, 'data')}" } }
  WorkloadAttestor "unix" { plugin_data {} }
}
`
  writeFileSync(config, text)
  const args = ['run', '-config', config, '-joinToken', token]
  return { program, args, socket, parent: '/stock' }
}

export function startAgent({ program, args }: PreparedAgent): AgentProcess {
  const child: ChildProcess = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const gone = once(child, 'exit')
  return {
    ...usageOf(child.pid ?? 0),
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
    async [Symbol.asyncDispose]() {
      child.kill()
      await gone
    },
  }
}

/**
 * Calls `onIds` with the IDs of each answer, until it is stopped; connects as soon as somebody serves the
 * socket, and again after an end.
 */
export async function followIds(
  socket: string,
  onIds: (ids: readonly string[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const onMessage = (message: Uint8Array) =>
    onIds(fromBinary(X509SVIDResponseSchema, message).svids.map(({ spiffeId }) => spiffeId))
  const stopped = once(signal, 'abort')
  while (!signal.aborted) {
    try {
      const connection = await connectSoon(socket, signal)
      await using stream = subscribe(connection, { method: fetchX509Svid, onMessage })
      await Promise.race([stream.ended, stopped])
      // it has nothing for us yet: a stock agent ends the stream, and is asked again
      await delay(askAgain, undefined, { signal })
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }
}

/** Resolves once a workload at that socket has an SVID. */
export async function untilServed(socket: string): Promise<void> {
  const served = new AbortController()
  await followIds(socket, () => served.abort(), served.signal)
}

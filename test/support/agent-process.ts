// An agent as a process of its own, which a shell may take something away from first; its authority is here.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { AgentStatus } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { createTopic } from '../../runtime/lifecycle.ts'
import { agentStatus } from './agent-status.ts'
import { startTestCa, type TestCa } from './ca.ts'
import { connectLocally } from './ca-client.ts'
import { invite, writeAgentConfig } from './invited-agent.ts'

const program = join(import.meta.dirname, '../../cli/boot.mjs')
const trustDomain = 'example.org'
const agentId = { trustDomain, path: '/node' }

export interface AgentProcess extends AsyncDisposable {
  readonly pid: number
  readonly ca: TestCa
  /** the agent's */
  readonly state: string
  readonly socket: string
  readonly lines: readonly string[]
  /** Resolves with the first line of its log, of those before and those to come, that holds `text`. */
  says(text: string): Promise<string>
  status(): Promise<AgentStatus>
  /** its exit code */
  readonly ended: Promise<number | null>
  /** Makes entries below the agent that processes of this user have. */
  register(...paths: readonly string[]): Promise<void>
}

export interface AgentProcessOptions {
  /** what a shell does before it becomes the agent, such as `ulimit -n 300` */
  readonly shell?: string
  /** further keys of agent.yaml */
  readonly agent?: Readonly<Record<string, unknown>>
  /** further lines of ca.yaml */
  readonly ca?: string
  /** which port to reach the authority's at */
  readonly via?: (port: number) => Promise<number>
}

/** Starts `castellan agent run` and waits until it has heard its authority. */
export async function startAgentProcess({
  shell = ':',
  agent = {},
  ca: moreOfCa = '',
  via = async (port) => port,
}: AgentProcessOptions = {}): Promise<AgentProcess> {
  await using starting = new AsyncDisposableStack()
  const ca = starting.use(await startTestCa({ config: `development: true\n${moreOfCa}` }))
  await invite(ca.running.socket, ca.folder, agentId.path)
  const file = writeAgentConfig(ca.folder, await via(ca.running.port), agent)
  const command = `${shell}\nexec "$@"`
  const args = ['-c', command, 'sh', process.execPath, program, 'agent', 'run', '--config', file]
  const child = spawn('bash', args, { stdio: ['ignore', 'inherit', 'pipe'] })
  starting.defer(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  })
  const ended = once(child, 'exit').then(([code]) => (typeof code === 'number' ? code : null))
  const lines: string[] = []
  const written = createTopic<string>()
  createInterface({ input: child.stderr }).on('line', (line) => {
    lines.push(line)
    written.publish(line)
  })
  async function says(text: string): Promise<string> {
    const known = lines.find((line) => line.includes(text))
    if (known !== undefined) return known
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    using _ = written.subscribe((line) => {
      if (line.includes(text)) resolve(line)
    })
    child.once('exit', () =>
      reject(new Error(`the agent has ended: ${lines.slice(-20).join('\n')}`)),
    )
    return await promise
  }
  await says('connected to the authority')
  const started = starting.move()
  return {
    ...{ pid: child.pid ?? 0, ca, lines, says, ended },
    state: join(ca.folder, 'agent'),
    socket: join(ca.folder, 'run/agent.sock'),
    status: () => agentStatus(join(ca.folder, 'admin/agent-admin.sock')),
    async register(...paths) {
      using local = connectLocally(ca.running.socket)
      const { results } = await local.client(Entry).batchCreateEntry({
        entries: paths.map((path) => ({
          spiffeId: { trustDomain, path },
          parentId: agentId,
          selectors: [{ type: 'unix', value: `uid:${process.getuid?.()}` }],
        })),
      })
      for (const { status } of results) if (status?.code !== 0) throw new Error(status?.message)
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

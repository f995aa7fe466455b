// kill -9 of the agent, a real process, at the moments that matter: what its next start makes of it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createClient } from '@connectrpc/connect'
import { expect, it, onTestFinished } from 'vitest'
import { loadAgentConfig } from '../../agent/config.ts'
import { runAgent } from '../../agent/main.ts'
import { openTransport } from '../../client/transport.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { parseSpiffeId, pathOf } from '../../spiffe/id.ts'
import { memoryLog, startTestCa, type TestCa } from '../support/ca.ts'
import { type Connection, connectLocally } from '../support/ca-client.ts'
import { invite, writeAgentConfig } from '../support/invited-agent.ts'

const program = fileURLToPath(new URL('../support/doomed-agent.ts', import.meta.url))

interface Scene {
  readonly ca: TestCa
  readonly local: Connection
  readonly configFile: string
  readonly socket: string
}

/** An authority, and the configuration of an agent that has a good token. */
async function setScene(lifetime = '1h'): Promise<Scene> {
  const ca = await startTestCa({ config: `agentLifetime: ${lifetime}\ndevelopment: true\n` })
  onTestFinished(() => ca[Symbol.asyncDispose]())
  const local = connectLocally(ca.running.socket)
  onTestFinished(() => local[Symbol.dispose]())
  await invite(ca.running.socket, ca.folder)
  const configFile = writeAgentConfig(ca.folder, ca.running.port)
  return { ca, local, configFile, socket: join(ca.folder, 'run/agent.sock') }
}

function startDoomed({ configFile }: Scene, step: string, which: string) {
  const child = spawn(process.execPath, [program, configFile, step, which], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

async function restarted({ configFile }: Scene) {
  const { log, lines } = memoryLog()
  const signal = AbortSignal.timeout(60_000)
  const agent = await runAgent(loadAgentConfig(configFile), { log, signal })
  onTestFinished(() => agent[Symbol.asyncDispose]())
  using admin = openTransport({ kind: 'unix', path: agent.adminSocket })
  const statuses = createClient(AgentAdmin, admin.transport).watchStatus({}, { signal })
  for await (const { connected, agentId } of statuses) if (connected) return { agentId, lines }
  throw new Error('the agent ended before it was connected')
}

const agentsOf = async ({ local }: Scene) =>
  (await local.client(Agent).listAgents({})).agents.map(
    ({ id }) => `spiffe://${id?.trustDomain}${id?.path}`,
  )

it.each([
  { step: 'unsaved', which: 'join', lifetime: '1h' },
  { step: 'saved', which: 'join', lifetime: '1h' },
  { step: 'unsaved', which: 'renewal', lifetime: '40s' },
  { step: 'saved', which: 'renewal', lifetime: '40s' },
])(
  'killed with the SVID of its $which $step, an agent resumes as who it was',
  async (doom) => {
    const scene = await setScene(doom.lifetime)
    const [code, signal] = await once(startDoomed(scene, doom.step, doom.which), 'exit')
    expect({ code, signal }).toEqual({ code: null, signal: 'SIGKILL' })
    const known = await agentsOf(scene)
    expect(known).toHaveLength(1)
    const { agentId } = await restarted(scene)
    expect(agentId).toBe(known[0])
    expect(await agentsOf(scene)).toEqual(known)
  },
  120_000,
)

it('killed under workloads, it leaves them their SVIDs, and serves them again once it is back', async () => {
  const scene = await setScene()
  const child = startDoomed(scene, 'never', 'never')
  await once(child.stdout, 'data')
  const [agentId = ''] = await agentsOf(scene)
  const register = (path: string) =>
    scene.local.client(Entry).batchCreateEntry({
      entries: [
        {
          spiffeId: { trustDomain: 'example.org', path },
          parentId: { trustDomain: 'example.org', path: pathOf(parseSpiffeId(agentId)) },
          selectors: [{ type: 'unix', value: `uid:${process.getuid?.()}` }],
        },
      ],
    })
  await register('/before')
  await using source = startX509Source({ kind: 'unix', path: scene.socket })
  const before = await source.ready(AbortSignal.timeout(60_000))
  child.kill('SIGKILL')
  await once(child, 'exit')
  expect(source.current()).toBe(before)

  await restarted(scene)
  const both = Promise.withResolvers<readonly string[]>()
  source.subscribe((context) => {
    const ids = context?.svids.map(({ id }) => String(id)) ?? []
    if (ids.length === 2) both.resolve(ids)
  })
  await register('/after')
  expect((await both.promise).toSorted()).toEqual([
    'spiffe://example.org/after',
    'spiffe://example.org/before',
  ])
}, 120_000)

it('a used token is refused to an agent that has lost its key', async () => {
  const scene = await setScene()
  await once(startDoomed(scene, 'saved', 'join'), 'exit')
  rmSync(join(scene.ca.folder, 'agent'), { recursive: true })
  await expect(restarted(scene)).rejects.toThrow(
    'join token does not exist, has expired or has already been used',
  )
}, 120_000)

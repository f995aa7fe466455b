// An agent that was down for longer than its certificate lives: a new join token cures it, a ban ends it.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { loadAgentConfig } from '../../agent/config.ts'
import { type RunningAgent, runAgent } from '../../agent/main.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { agentStatus } from '../support/agent-status.ts'
import { memoryLog, startTestCa, type TestCa } from '../support/ca.ts'
import { type Connection, connectLocally, rootsOf } from '../support/ca-client.ts'

const trustDomain = 'example.org'
const patience = { timeout: 120_000, interval: 200 }
const signal = () => AbortSignal.timeout(120_000)

let ca: TestCa
let local: Connection
beforeAll(async () => {
  ca = await startTestCa({ config: 'development: true\nagentLifetime: 15s\n' })
  local = connectLocally(ca.running.socket)
}, 60_000)
afterAll(async () => {
  local[Symbol.dispose]()
  await ca[Symbol.asyncDispose]()
})

async function putToken(folder: string, path: string): Promise<void> {
  const agentId = { trustDomain, path }
  const { value } = await local.client(Agent).createJoinToken({ ttl: 600, agentId })
  writeFileSync(join(folder, 'token'), value)
}

async function register(path: string, parent: string): Promise<void> {
  const selectors = [{ type: 'unix', value: `uid:${process.getuid?.()}` }]
  const { results } = await local.client(Entry).batchCreateEntry({
    entries: [
      { spiffeId: { trustDomain, path }, parentId: { trustDomain, path: parent }, selectors },
    ],
  })
  expect(results.map(({ status }) => status?.code)).toEqual([0])
}

/** A node with a token whose alias is `/NAME`, and an entry `/NAME/web` for processes of this user. */
async function makeNode(name: string) {
  const folder = join(ca.folder, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'bundle.pem'), await rootsOf(ca.running.socket))
  const text = `trustDomain: ${trustDomain}
authority: { address: 127.0.0.1:${ca.running.port}, bundle: bundle.pem }
joinTokenFile: token
state: state
socket: run/agent.sock
adminSocket: admin/admin.sock
`
  writeFileSync(join(folder, 'agent.yaml'), text)
  await putToken(folder, `/${name}`)
  await register(`/${name}/web`, `/${name}`)
  const config = loadAgentConfig(join(folder, 'agent.yaml'))
  const { log } = memoryLog()
  const workload = () => startX509Source({ kind: 'unix', path: config.socket })
  const status = () => agentStatus(config.adminSocket)
  const start = () => runAgent(config, { log, signal: signal() })
  return { folder, config, workload, status, start }
}

type Node = Awaited<ReturnType<typeof makeNode>>

/** Stops it once its workloads have these; resolves with its ID when its certificate has expired. */
async function expire(node: Node, agent: RunningAgent, ...paths: string[]): Promise<string> {
  await served(node, ...paths)
  const { agentId } = await node.status()
  await agent[Symbol.asyncDispose]()
  const path = agentId.slice(`spiffe://${trustDomain}`.length)
  const { x509svidExpiresAt } = await local.client(Agent).getAgent({ id: { trustDomain, path } })
  const end = Number(x509svidExpiresAt) * 1000
  // TLS compares with the system's time, which no test moves
  await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(end), patience)
  return path
}

/** Waits until a workload has these identities; the serial numbers of their SVIDs. */
async function served({ workload }: Node, ...paths: string[]): Promise<string[]> {
  await using source = workload()
  await source.ready(signal())
  const wanted = paths.map((path) => `spiffe://${trustDomain}${path}`)
  const ids = () => source.current()?.svids.map(({ id }) => id)
  await vi.waitFor(() => expect(ids()?.toSorted()).toEqual(wanted.toSorted()), patience)
  return source.current()?.svids.map(({ serial }) => serial) ?? []
}

const kept = ({ config }: Node) =>
  ['identity', 'knowledge', 'identities'].map((it) =>
    existsSync(join(config.state, `${it}.sealed`)),
  )

describe('an agent whose certificate has expired while it was down', () => {
  it('serves from its disk, says what to do, and goes on as it was with a new join token', async () => {
    const node = await makeNode('patient')
    const agent = await node.start()
    const serials = await served(node, '/patient/web')
    const before = await expire(node, agent, '/patient/web')
    const again = node.start()
    expect(await served(node, '/patient/web')).toEqual(serials)
    await vi.waitFor(async () => {
      const { connected, trouble } = await node.status()
      expect(connected).toBe(false)
      expect(trouble).toContain('put a new join token where joinTokenFile says')
    }, patience)
    await putToken(node.folder, '/patient')
    await using running = await again
    await vi.waitFor(async () => {
      const { connected, trouble, agentId } = await node.status()
      expect([connected, trouble]).toEqual([true, ''])
      expect(agentId).not.toBe(`spiffe://${trustDomain}${before}`)
    }, patience)
    expect(await served(node, '/patient/web')).toEqual(serials)
    await register('/patient/more', '/patient')
    await served(node, '/patient/web', '/patient/more')
    expect(await Promise.race([running.done, 'running'])).toBe('running')
  }, 300_000)

  it('has what the agent has that its new token makes it, nothing of the one before', async () => {
    const node = await makeNode('former')
    const agent = await node.start()
    await served(node, '/former/web')
    await putToken(node.folder, '/latter')
    await register('/latter/web', '/latter')
    // the agent is told of this after all that was done for the other one
    await register('/former/late', '/former')
    await expire(node, agent, '/former/web', '/former/late')
    await using _ = await node.start()
    await served(node, '/latter/web')
  }, 300_000)

  it('ends when it was banned, and leaves nothing of its workloads on the disk', async () => {
    const node = await makeNode('banned')
    const path = await expire(node, await node.start(), '/banned/web')
    expect(kept(node)).toEqual([true, true, true])
    await local.client(Agent).banAgent({ id: { trustDomain, path } })
    await expect(node.start()).rejects.toThrow('this agent is banned')
    expect(kept(node)).toEqual([false, false, false])
  }, 300_000)

  it('believes the roots of its last day, where agent.yaml has none that is good any more', async () => {
    const node = await makeNode('rotated')
    const agent = await node.start()
    await served(node, '/rotated/web')
    const operator = local.client(LocalAuthority)
    const old = (await operator.getX509AuthorityState({})).active?.authorityId ?? ''
    const next = (await operator.prepareX509Authority({})).preparedAuthority?.authorityId ?? ''
    await vi.waitFor(() => operator.activateX509Authority({ authorityId: next }), patience)
    await operator.taintX509Authority({ authorityId: old })
    await vi.waitFor(() => operator.revokeX509Authority({ authorityId: old }), patience)
    await expire(node, agent, '/rotated/web')
    await putToken(node.folder, '/rotated')
    await using _ = await node.start()
    await vi.waitFor(async () => {
      const { connected, trouble } = await node.status()
      expect([connected, trouble]).toEqual([true, ''])
    }, patience)
    await served(node, '/rotated/web')
  }, 400_000)
})

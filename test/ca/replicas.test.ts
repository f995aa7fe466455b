// Two authorities on one PostgreSQL, and an agent that goes from one to the other.
import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { stringify } from 'yaml'
import { loadAgentConfig } from '../../agent/config.ts'
import { type RunningAgent, runAgent } from '../../agent/main.ts'
import type { CaConfig } from '../../ca/config.ts'
import { runAuthority } from '../../ca/main.ts'
import { openTransport } from '../../client/transport.ts'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { createLog } from '../../runtime/log.ts'
import { toPem } from '../../spiffe/pem.ts'
import { testConfig } from '../support/ca.ts'
import { castellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'
import { freePorts } from '../support/ports.ts'
import { startPostgres, type TestPostgres, whyNoPostgres } from '../support/postgres.ts'

const why = whyNoPostgres()
const log = createLog({ name: 'test', level: process.env.TEST_LOG ?? 'silent' })
const boot = fileURLToPath(new URL('../../cli/boot.mjs', import.meta.url))
const patience = { timeout: 60_000, interval: 200 }

interface Replica {
  readonly socket: string
  readonly port: number
  /** of one that runs in this process */
  readonly operationsPort?: number
}

let stack: AsyncDisposableStack
let postgres: TestPostgres
let url: string
let firstProcess: ChildProcess
let secondPort: number
const replicas: Replica[] = []
/** by which the first one is known in the store */
let firstId: unknown
let agent: RunningAgent

function configure(port: number): CaConfig {
  const folder = stack.use(testFolder()).path
  writeFileSync(join(folder, 'ca.key'), `${'k'.repeat(43)}\n`, { mode: 0o600 })
  const more = `store: ${url}\ndevelopment: true\nlogLevel: error\n`
  const config = testConfig(folder, more, port)
  return config
}

/** A process of its own, so that it can be killed. */
async function spawnReplica(port: number): Promise<Replica> {
  const { state } = configure(port)
  const folder = dirname(state)
  const args = [boot, 'ca', 'run', '--config', join(folder, 'ca.yaml')]
  firstProcess = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  stack.defer(() => void firstProcess.kill('SIGKILL'))
  const replica = { socket: join(state, 'ca.sock'), port }
  await vi.waitFor(() => statusAt(replica), patience)
  replicas.push(replica)
  return replica
}

async function runReplica(port: number): Promise<Replica> {
  const replica = await runAuthority(configure(port), { log })
  stack.use(replica)
  replicas.push(replica)
  return replica
}

function at<T>(
  replica: Replica | undefined,
  ask: (transport: Parameters<typeof createClient>[1]) => Promise<T>,
) {
  const opened = openTransport({ kind: 'unix', path: replica?.socket ?? '' })
  return ask(opened.transport).finally(() => opened[Symbol.dispose]())
}

const statusAt = (replica: Replica | undefined) =>
  at(replica, (transport) => createClient(Authorities, transport).getStatus({}))
const phasesAt = async (replica: Replica | undefined, kind = 'x509') =>
  (await statusAt(replica)).authorities.filter((it) => it.kind === kind).map(({ phase }) => phase)
const bundleAt = (replica: Replica | undefined) =>
  at(replica, (transport) => createClient(Bundle, transport).getBundle({}))

async function agentConnected(): Promise<void> {
  using admin = openTransport({ kind: 'unix', path: agent.adminSocket })
  const signal = AbortSignal.timeout(60_000)
  const statuses = createClient(AgentAdmin, admin.transport).watchStatus({}, { signal })
  for await (const { connected } of statuses) if (connected) return
}

beforeAll(async () => {
  stack = new AsyncDisposableStack()
  if (why !== undefined) return
  postgres = stack.use(await startPostgres())
  url = await postgres.database()
  const ports = await freePorts(2)
  const first = await spawnReplica(ports[0] ?? 0)
  secondPort = ports[1] ?? 0
  const folder = stack.use(testFolder()).path
  const { x509Authorities } = await bundleAt(first)
  const pem = x509Authorities.map(({ asn1 }) => toPem(asn1, 'CERTIFICATE')).join('')
  writeFileSync(join(folder, 'bundle.pem'), pem)
  const { value } = await at(first, (transport) =>
    createClient(Agent, transport).createJoinToken({
      ttl: 600,
      agentId: { trustDomain: 'example.org', path: '/node' },
    }),
  )
  writeFileSync(join(folder, 'token'), value)
  const content = {
    trustDomain: 'example.org',
    authority: { address: ports.map((port) => `127.0.0.1:${port}`), bundle: 'bundle.pem' },
    ...{ joinTokenFile: 'token', state: 'agent' },
    ...{ socket: 'run/agent.sock', adminSocket: 'admin/agent-admin.sock' },
  }
  writeFileSync(join(folder, 'agent.yaml'), stringify(content))
  const stop = new AbortController()
  stack.defer(() => stop.abort())
  agent = await runAgent(loadAgentConfig(join(folder, 'agent.yaml')), { log, signal: stop.signal })
  stack.defer(() => agent[Symbol.asyncDispose]())
  await agentConnected()
}, 240_000)
afterAll(() => stack[Symbol.asyncDispose](), 120_000)

describe.skipIf(why !== undefined)('a second authority on the same PostgreSQL', () => {
  it('begins prepared, serves with a certificate of the first, and signs once the agent knows it', async () => {
    const idsInStore = () => postgres.query('SELECT id FROM replicas', url)
    await vi.waitFor(async () => expect(await idsInStore()).toHaveLength(1), patience)
    firstId = (await idsInStore())[0]?.id
    const second = await runReplica(secondPort)
    // each hears of what the other has written a moment later
    await vi.waitFor(async () => expect(await phasesAt(replicas[0])).toHaveLength(2), patience)
    // prepared at the start; the agent hears of it through the first one
    await vi.waitFor(
      async () => expect(await phasesAt(second)).toEqual(['active', 'active']),
      patience,
    )
    await vi.waitFor(
      async () => expect(await phasesAt(replicas[0])).toEqual(['active', 'active']),
      patience,
    )
    await vi.waitFor(async () => {
      const { replicas: names, connectedAgents } = await statusAt(second)
      expect(names).toHaveLength(2)
      expect(connectedAgents).toBe(1n)
    }, patience)
  }, 240_000)

  it('shares the keys of tokens, entries and agents', async () => {
    const [a, b] = await Promise.all(replicas.map(bundleAt))
    expect(a?.jwtAuthorities.map(({ keyId }) => keyId)).toEqual(
      b?.jwtAuthorities.map(({ keyId }) => keyId),
    )
    expect(a?.jwtAuthorities).toHaveLength(1)
    expect(a?.x509Authorities).toHaveLength(2)
    const created = await at(replicas[0], (transport) =>
      createClient(Entry, transport).batchCreateEntry({
        entries: [
          {
            spiffeId: { trustDomain: 'example.org', path: '/web' },
            parentId: { trustDomain: 'example.org', path: '/node' },
            selectors: [{ type: 'unix', value: 'uid:1' }],
          },
        ],
      }),
    )
    const id = created.results[0]?.entry?.id ?? ''
    const read = () =>
      at(replicas[1], (transport) => createClient(Entry, transport).getEntry({ id }))
    await vi.waitFor(async () => expect((await read()).spiffeId?.path).toBe('/web'), patience)
    const agents = await at(replicas[1], (transport) =>
      createClient(Agent, transport).listAgents({}),
    )
    expect(agents.agents).toHaveLength(1)
  }, 120_000)

  it('knows of agents of the other one whether they decide with new policies', async () => {
    const file = join(stack.use(testFolder()).path, 'all.yaml')
    const spec = 'spec: { rules: [{ from: [{ source: { namespaces: [a] } }] }] }'
    const metadata = 'metadata: { name: all, namespace: shop }'
    const head = 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy'
    writeFileSync(file, `${head}\n${metadata}\n${spec}\n`)
    const socket = ['--socket', replicas[1]?.socket ?? '']
    const waiting = ['--wait', '--timeout', '60s', '-o', 'json']
    const { code, stdout } = await castellan(['policy', 'apply', file, ...waiting, ...socket])
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ version: 1, points: 1, acknowledged: 1 })
  }, 120_000)

  it('activates a prepared key of tokens once, when both are told to at once', async () => {
    const prepared = await at(replicas[0], (transport) =>
      createClient(LocalAuthority, transport).prepareJWTAuthority({}),
    )
    const authorityId = prepared.preparedAuthority?.authorityId ?? ''
    const activate = (replica: Replica) =>
      at(replica, (transport) =>
        createClient(LocalAuthority, transport).activateJWTAuthority({ authorityId }),
      )
    await vi.waitFor(async () => {
      const both = await Promise.allSettled(replicas.map(activate))
      const active = await Promise.all(replicas.map((it) => phasesAt(it, 'jwt')))
      expect(active).toEqual([
        ['old', 'active'],
        ['old', 'active'],
      ])
      return both
    }, patience)
  }, 120_000)

  it('goes on when the database is killed under it and comes back', async () => {
    const create = () =>
      at(replicas[1], (transport) => createClient(Agent, transport).createJoinToken({ ttl: 60 }))
    // under load: connections break in the middle of transactions
    const load = Promise.allSettled(Array.from({ length: 60 }, create))
    await postgres.kill()
    for (const outcome of await load) {
      if (outcome.status === 'rejected')
        expect(ConnectError.from(outcome.reason).code).toBe(Code.Unavailable)
    }
    const refused = at(replicas[1], (transport) =>
      createClient(Agent, transport).createJoinToken({ ttl: 60 }),
    )
    await expect(refused).rejects.toThrow(/cannot be reached|store failed/)
    await postgres.start()
    await vi.waitFor(
      () =>
        at(replicas[1], (transport) => createClient(Agent, transport).createJoinToken({ ttl: 60 })),
      patience,
    )
    // what one writes the other hears of again
    const { results } = await at(replicas[1], (transport) =>
      createClient(Entry, transport).batchCreateEntry({
        entries: [
          {
            spiffeId: { trustDomain: 'example.org', path: '/later' },
            parentId: { trustDomain: 'example.org', path: '/node' },
            selectors: [{ type: 'unix', value: 'uid:2' }],
          },
        ],
      }),
    )
    const id = results[0]?.entry?.id ?? ''
    await vi.waitFor(
      () => at(replicas[0], (transport) => createClient(Entry, transport).getEntry({ id })),
      patience,
    )
  }, 240_000)

  it('says that it cannot store while the database takes no writes, and goes on when it does', async () => {
    const [name] = new URL(url).pathname.split('/').slice(1)
    const setReadOnly = async (value: string) => {
      await postgres.query(`ALTER DATABASE ${name} SET default_transaction_read_only = ${value}`)
      // those that are open keep what they began with
      await postgres.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
      )
    }
    const isReady = async () =>
      (await fetch(`http://127.0.0.1:${replicas[1]?.operationsPort}/readyz`)).status === 200
    const create = () =>
      at(replicas[1], (transport) => createClient(Agent, transport).createJoinToken({ ttl: 60 }))
    await vi.waitFor(async () => expect(await isReady()).toBe(true), patience)
    await setReadOnly('on')
    await vi.waitFor(async () => expect(await isReady()).toBe(false), patience)
    const refusal: unknown = await create().catch((error: unknown) => error)
    expect(ConnectError.from(refusal).code).toBe(Code.Unavailable)
    await setReadOnly('off')
    await vi.waitFor(create, patience)
    await vi.waitFor(async () => expect(await isReady()).toBe(true), patience)
  }, 240_000)

  it('takes the agent over when the first one is killed', async () => {
    firstProcess.kill('SIGKILL')
    const { results } = await at(replicas[1], (transport) =>
      createClient(Entry, transport).batchCreateEntry({
        entries: [
          {
            spiffeId: { trustDomain: 'example.org', path: '/after' },
            parentId: { trustDomain: 'example.org', path: '/node' },
            selectors: [{ type: 'unix', value: 'uid:3' }],
          },
        ],
      }),
    )
    expect(results[0]?.status?.code).toBe(0)
    // heard by the second one now: it says so in the store
    const rows = () => postgres.query('SELECT replica FROM acknowledgements', url)
    const ids = async () =>
      (await postgres.query('SELECT id FROM replicas', url))
        .map(({ id }) => id)
        .filter((id) => id !== firstId)
    await vi.waitFor(async () => expect(await ids()).toHaveLength(1), patience)
    const [second] = await ids()
    await vi.waitFor(async () => expect(await rows()).toEqual([{ replica: second }]), patience)
  }, 240_000)
})

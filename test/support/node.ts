// An authority and an agent in this process, on a folder of their own: what a workload on a node finds.
import { createPublicKey } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient, type Transport } from '@connectrpc/connect'
import { stringify } from 'yaml'
import { loadAgentConfig } from '../../agent/config.ts'
import { type RunningAgent, runAgent } from '../../agent/main.ts'
import { type CaConfig, loadCaConfig } from '../../ca/config.ts'
import { type RunningAuthority, runAuthority } from '../../ca/main.ts'
import { openAuthority } from '../../ca/open.ts'
import { prepareState } from '../../ca/state-folder.ts'
import type { DevCa } from '../../certs-dev/authority.ts'
import { openTransport } from '../../client/transport.ts'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { type Clock, systemClock } from '../../runtime/clock.ts'
import { createLog } from '../../runtime/log.ts'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { testFolder } from './folder.ts'
import { writeAgentConfig } from './invited-agent.ts'

export const trustDomain = 'example.org'
export const agentId = { trustDomain, path: '/node' }
const silent = () => createLog({ name: 'test', level: process.env.TEST_LOG ?? 'silent' })

export interface TestNode extends AsyncDisposable {
  readonly folder: string
  readonly authority: RunningAuthority
  readonly agent: RunningAgent
  /** the authority's local socket */
  readonly local: Transport
  /** the authority's first key, for certificates that it would never issue */
  readonly signer: DevCa
  /** Makes an entry below this node's agent; `selectors` as `type:value`. Returns its id. */
  register(
    path: string,
    selectors: readonly string[],
    options?: { readonly federatesWith?: readonly string[] },
  ): Promise<string>
  stopAuthority(): Promise<void>
  startAuthority(): Promise<void>
  restartAgent(): Promise<void>
  stopAgent(): Promise<void>
  /** Resolves as soon as it has an identity, heard or not. */
  startAgent(): Promise<void>
}

/** Resolves once the agent has heard its authority: until then it tells workloads to come again. */
async function heard({ adminSocket }: RunningAgent): Promise<void> {
  using admin = openTransport({ kind: 'unix', path: adminSocket })
  const signal = AbortSignal.timeout(60_000)
  const statuses = createClient(AgentAdmin, admin.transport).watchStatus({}, { signal })
  for await (const { connected } of statuses) if (connected) return
  throw new Error('the agent ended before it was connected')
}

export interface NodeOptions {
  readonly svidLifetime?: string
  /** further keys of agent.yaml */
  readonly agent?: Readonly<Record<string, unknown>>
  /** further keys of ca.yaml */
  readonly ca?: Readonly<Record<string, unknown>>
  /** the agent's */
  readonly clock?: Clock
}

/** Makes the authority; its roots go into `bundle.pem`. */
async function found(config: CaConfig, folder: string): Promise<DevCa> {
  await using opened = await openAuthority(config, { log: silent() })
  writeFileSync(join(folder, 'bundle.pem'), bundleToPem(opened.authorities.bundle()))
  const { certificate, key: privateKey } = opened.authorities.active()
  const { subject, der } = certificate
  const publicKey = createPublicKey(privateKey)
  return { subject, certificate: Buffer.from(der), privateKey, publicKey, chain: [] }
}

/** Makes entries below the agent of a node, at its authority's local socket. */
export const register =
  (local: Transport): TestNode['register'] =>
  async (path, selectors, { federatesWith = [] } = {}) => {
    const entry = {
      spiffeId: { trustDomain, path },
      parentId: agentId,
      federatesWith: [...federatesWith],
      selectors: selectors.map((text) => {
        const colon = text.indexOf(':')
        return { type: text.slice(0, colon), value: text.slice(colon + 1) }
      }),
    }
    const { results } = await createClient(Entry, local).batchCreateEntry({ entries: [entry] })
    const [result] = results
    if (result?.status?.code !== 0) throw new Error(`entry refused: ${result?.status?.message}`)
    return result.entry?.id ?? ''
  }

/** Everything on loopback and in a temporary folder; leaves live `svidLifetime`. */
export async function startNode({
  svidLifetime = '1h',
  agent: moreOfAgent = {},
  ca: moreOfCa = {},
  clock = systemClock,
}: NodeOptions = {}): Promise<TestNode> {
  await using starting = new AsyncDisposableStack()
  const folder = starting.use(testFolder()).path
  const caConfig = (port: number) => {
    const file = join(folder, 'ca.yaml')
    const content = {
      trustDomain,
      state: 'ca',
      unlock: { keyFile: 'ca/ca.key' },
      svidLifetime,
      development: true,
      ...moreOfCa,
    }
    const addresses = { listen: `127.0.0.1:${port}`, operations: '127.0.0.1:0' }
    writeFileSync(file, stringify({ ...content, ...addresses }))
    return loadCaConfig(file)
  }
  const first = caConfig(0)
  prepareState(first)
  const signer = await found(first, folder)
  let authority = await runAuthority(first, { log: silent() })
  starting.defer(() => authority[Symbol.asyncDispose]())
  const { port } = authority
  const transport = starting.use(openTransport({ kind: 'unix', path: authority.socket })).transport
  const token = await createClient(Agent, transport).createJoinToken({ ttl: 60, agentId })
  writeFileSync(join(folder, 'token'), token.value)
  const config = loadAgentConfig(writeAgentConfig(folder, port, moreOfAgent))
  const stop = new AbortController()
  starting.defer(() => stop.abort())
  const start = () => runAgent(config, { log: silent(), clock, signal: stop.signal })
  let agent = await start()
  starting.defer(() => agent[Symbol.asyncDispose]())
  await heard(agent)
  const started = starting.move()
  return {
    folder,
    get authority() {
      return authority
    },
    get agent() {
      return agent
    },
    ...{ local: transport, signer },
    register: register(transport),
    stopAuthority: async () => authority[Symbol.asyncDispose](),
    async startAuthority() {
      authority = await runAuthority(caConfig(port), { log: silent() })
    },
    stopAgent: async () => agent[Symbol.asyncDispose](),
    async startAgent() {
      agent = await start()
    },
    async restartAgent() {
      await agent[Symbol.asyncDispose]()
      agent = await start()
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

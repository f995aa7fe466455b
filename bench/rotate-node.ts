// bench rotate-node: a thousand SVIDs of one node are renewed, each with a new key, and pushed to whoever follows
// them. The streams are of the Delegated Identity API, where one program follows a thousand workloads by their
// selectors: the Workload API knows its callers by their processes, and a thousand of those would be measured too.
// They are due all at once because their entries are changed; what then happens is what happens at a renewal point.
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  SubscribeToX509SVIDsRequestSchema,
  SubscribeToX509SVIDsResponseSchema,
} from '../proto/gen/spire/api/agent/delegatedidentity/v1/delegatedidentity_pb.js'
import { Entry } from '../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { bareCsr } from '../spiffe/csr.ts'
import { connectLocally } from '../test/support/ca-client.ts'
import { testFolder } from '../test/support/folder.ts'
import { each } from './agents/crowd.ts'
import { openEntries, ownEntry } from './agents/entries.ts'
import { connectTo, subscribe } from './agents/workload.ts'
import { type Bench, type BenchResult, fact, judge, median, rounded } from './measure.ts'
import { type AgentProcess, prepareNode, startAgent, untilServed } from './servers/agents.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'

const workloads = 1000
const [rounds, alone] = [5, 50]
/** milliseconds */
const patience = 60_000
/** times the key pairs and the signatures of the CSRs, which cannot be had for less */
const goal = 10
const trustDomain = 'example.org'
const delegate = '/delegate'
const method = 'spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs'

const selectorOf = (index: number) => ({ type: 'unix', value: `user:w${index}` })

/** Every workload's stream, and who waits for its next SVID. */
interface Streams extends AsyncDisposable {
  /** Resolves once each of these workloads has another SVID than before. */
  renewed(indexes: readonly number[]): Promise<void>
}

async function openStreams(socket: string): Promise<Streams> {
  await using opening = new AsyncDisposableStack()
  const leaves: string[] = []
  const waiting = new Map<number, () => void>()
  const renewed = (indexes: readonly number[]) =>
    Promise.all(indexes.map((index) => new Promise<void>((done) => waiting.set(index, done)))).then(
      () => {},
    )
  const first = renewed(Array.from({ length: workloads }, (_, index) => index))
  await each(workloads, 20, async (index) => {
    const request = create(SubscribeToX509SVIDsRequestSchema, { selectors: [selectorOf(index)] })
    const message = toBinary(SubscribeToX509SVIDsRequestSchema, request)
    const onMessage = (bytes: Uint8Array) => {
      const [svid] = fromBinary(SubscribeToX509SVIDsResponseSchema, bytes).x509Svids
      const leaf = Buffer.from(svid?.x509Svid?.certChain[0] ?? []).toString('base64')
      if (leaf === '' || leaf === leaves[index]) return
      leaves[index] = leaf
      waiting.get(index)?.()
      waiting.delete(index)
    }
    opening.use(subscribe(await connectTo(socket), { method, message, onMessage }))
  })
  await inTime(first)
  const open = opening.move()
  return { renewed, [Symbol.asyncDispose]: () => open.disposeAsync() }
}

async function inTime(done: Promise<void>): Promise<void> {
  const late = AbortSignal.timeout(patience)
  const given = new Promise<never>((_, reject) =>
    late.addEventListener('abort', () =>
      reject(new Error(`not every workload had its SVID after ${patience / 1000} s`)),
    ),
  )
  await Promise.race([done, given])
}

interface Rotation {
  /** microseconds of CPU for each SVID */
  readonly cpu: number
  /** of `performance.now()` */
  readonly from: number
  readonly to: number
}

/** What the rounds work on. */
interface Node {
  readonly streams: Streams
  readonly agent: AgentProcess
  /** Makes the SVIDs of these workloads due. */
  readonly change: (indexes: readonly number[]) => Promise<void>
}

async function rotate({ streams, agent, change }: Node, indexes: readonly number[]) {
  const [before, from] = [agent.cpu(), performance.now()]
  const renewed = streams.renewed(indexes)
  await change(indexes)
  await inTime(renewed)
  const rotation: Rotation = {
    cpu: (agent.cpu() - before) / indexes.length,
    from,
    to: performance.now(),
  }
  return rotation
}

/** Microseconds of CPU for a key pair and a CSR signed by it. */
function leastWork(): number {
  const before = process.cpuUsage()
  for (let i = 0; i < workloads; i++)
    bareCsr(generateKeyPairSync('ec', { namedCurve: 'prime256v1' }))
  const { user, system } = process.cpuUsage(before)
  return (user + system) / workloads
}

/** Entries of all workloads and of who follows them; what changes them. */
async function register(socket: string, parent: string, stack: DisposableStack) {
  using maker = openEntries(socket)
  const parentId = { trustDomain, path: parent }
  await maker.create([ownEntry(delegate, parent)])
  const ids = await maker.create(
    Array.from({ length: workloads }, (_, index) => ({
      spiffeId: { trustDomain, path: `/ns/bench/sa/w${index}` },
      parentId,
      selectors: [selectorOf(index)],
    })),
  )
  const client = stack.use(connectLocally(socket)).client(Entry)
  let ttl = 3600
  return async (indexes: readonly number[]) => {
    ttl += 1
    const entries = indexes.map((index) => ({ id: ids[index] ?? '', x509SvidTtl: ttl }))
    const inputMask = { x509SvidTtl: true }
    const { results } = await client.batchUpdateEntry({ entries, inputMask, outputMask: {} })
    const refused = results.find(({ status }) => status?.code !== 0)
    if (refused !== undefined) throw new Error(`an entry is refused: ${refused.status?.message}`)
  }
}

interface Measured {
  readonly together: readonly Rotation[]
  readonly apart: readonly Rotation[]
  /** microseconds */
  readonly least: readonly number[]
}

async function measure(node: Node): Promise<Measured> {
  const all = Array.from({ length: workloads }, (_, index) => index)
  const [together, apart, least]: [Rotation[], Rotation[], number[]] = [[], [], []]
  // the first round is for warming up
  for (let round = 0; round <= rounds; round++) {
    const [rotation, limit] = [await rotate(node, all), leastWork()]
    if (round === 0) continue
    together.push(rotation)
    least.push(limit)
  }
  for (const index of all.slice(0, alone)) apart.push(await rotate(node, [index]))
  return { together, apart, least }
}

function resultOf({ together, apart, least }: Measured, pauses: Pauses): BenchResult {
  const cpuOf = (rotations: readonly Rotation[]) => median(rotations.map(({ cpu }) => cpu))
  const took = (rotations: readonly Rotation[]) => median(rotations.map((it) => it.to - it.from))
  const still = together.map(({ from, to }) => rounded(pauses.during(from, to), 0)).join(', ')
  const [figure, limit] = [cpuOf(together), median(least)]
  const what = `CPU of the agent for each of ${workloads} SVIDs: ${rounded(figure)} µs`
  const { rows, ok } = judge([
    { what, measured: figure / limit, unit: 'of key and CSR', limit: { most: goal } },
  ])
  return {
    rows: [
      ...rows,
      fact('P-256 key and signature of a CSR, nothing else', limit, 'µs CPU'),
      fact(
        `from the change to the last push, median (the machine stood still ${still})`,
        took(together),
        'ms',
      ),
      fact('one SVID alone', cpuOf(apart), 'µs CPU'),
      fact('from its change to its push, median', took(apart), 'ms'),
    ],
    figure: rounded(figure),
    unit: `µs CPU of the agent for each of ${workloads} SVIDs renewed and pushed, the last after ${rounded(took(together), 0)} ms`,
    goal: rounded(goal * limit),
    peer: { name: 'key and CSR alone, µs', figure: rounded(limit) },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const more = { delegates: [`spiffe://${trustDomain}${delegate}`] }
  const { authority, prepared } = await prepareNode(folder, stack, more)
  const connections = stack.use(new DisposableStack())
  const change = await register(authority.socket, prepared.parent, connections)
  const agent = stack.use(startAgent(prepared))
  await untilServed(prepared.socket)
  const streams = stack.use(await openStreams(join(folder, 'agent/admin/agent-admin.sock')))
  const pauses = stack.use(watchPauses())
  return resultOf(await measure({ streams, agent, change }), pauses)
}

export const rotateNodeBench: Bench = { name: 'rotate-node', run }

// bench storm: 10 000 agents join again, as many at once as one client process can drive, each by a TLS
// connection and a token of its own; then those that are connected get their workloads' SVIDs.
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  BatchNewX509SVIDRequestSchema,
  BatchNewX509SVIDResponseSchema,
} from '../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { bareCsr } from '../spiffe/csr.ts'
import { newKeys, rootsOf } from '../test/support/ca-client.ts'
import { testFolder } from '../test/support/folder.ts'
import { type AgentConnection, connectAgent } from './agents/connection.ts'
import { contextOf, createTokens, each, type Joined } from './agents/crowd.ts'
import { entryOf, openEntries } from './agents/entries.ts'
import { type Bench, type BenchResult, fact, type Goal, judge, rounded } from './measure.ts'
import { type AuthorityProcess, startOurs } from './servers/authorities.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'
import { handshakesPerSecond } from './storm/handshakes.ts'
import { joinAtLast, type Node, type Weather } from './storm/join.ts'

const agents = 10_000
/** connections of all those at a time, by one process with one processor: more would only wait in it */
const atOnce = 256
/** those that ask for SVIDs, how many each at once, and how often */
const [connected, perAgent, turns] = [1000, 10, 2]
/** milliseconds: who has not joined by then stays outside, and is not counted */
const longestStorm = 120_000
const goals = { joins: 400, svids: 2000, memory: 1024 } as const
const svidMethod = 'spire.api.server.svid.v1.SVID/BatchNewX509SVID'

interface Part {
  readonly count: number
  /** of `performance.now()` */
  readonly from: number
  readonly to: number
}

function makeNode(token: string): Node {
  const keys = newKeys()
  return { token, csr: bareCsr(keys), key: keys.privateKey }
}

async function storm({ port }: AuthorityProcess, roots: string, nodes: readonly Node[]) {
  const anonymous = createSecureContext({ ca: roots })
  const weather: Weather = { exhausted: 0, delayed: 0, broken: 0 }
  const from = performance.now()
  const conditions = { anonymous, weather, deadline: from + longestStorm }
  const joined: (Joined | undefined)[] = []
  await each(nodes.length, atOnce, async (index) => {
    const node = nodes[index]
    if (node !== undefined) joined[index] = await joinAtLast(node, port, conditions)
  })
  const count = joined.filter((it) => it !== undefined).length
  const part: Part = { count, from, to: performance.now() }
  return { part, joined, weather }
}

interface Connected {
  readonly connection: AgentConnection
  readonly request: Uint8Array
}

/** The SVIDs of all, each agent's in batches, one batch after the other. */
async function issueAll(all: readonly Connected[]): Promise<Part> {
  const from = performance.now()
  const ask = async ({ connection, request }: Connected) => {
    const { code, messages } = await connection.call(svidMethod, request)
    const answer = fromBinary(BatchNewX509SVIDResponseSchema, messages[0] ?? new Uint8Array())
    const issued = answer.results.filter(({ status }) => status?.code === 0).length
    if (code !== 0 || issued !== perAgent) throw new Error(`SVIDs were refused: status ${code}`)
  }
  const one = async (it: Connected) => {
    for (let turn = 0; turn < turns; turn++) await ask(it)
  }
  await Promise.all(all.map(one))
  return { count: all.length * perAgent * turns, from, to: performance.now() }
}

async function connectSome(
  { port, socket }: AuthorityProcess,
  roots: string,
  nodes: readonly (readonly [Node, Joined])[],
): Promise<{ readonly all: readonly Connected[] } & Disposable> {
  const stack = new DisposableStack()
  using maker = openEntries(socket)
  const csrs = Array.from({ length: perAgent }, () => bareCsr(newKeys()))
  const all: Connected[] = []
  await each(nodes.length, 32, async (index) => {
    const [node, joined] = nodes[index] ?? []
    if (node === undefined || joined === undefined) return
    const names = csrs.map((_, i) => entryOf(`w${index}-${i}`, joined.path))
    const ids = await maker.create(names)
    const params = ids.map((entryId, i) => ({ entryId, csr: csrs[i] ?? new Uint8Array() }))
    const request = create(BatchNewX509SVIDRequestSchema, { params })
    const context = contextOf(roots, joined, node.key)
    // a machine that stands still for long makes handshakes late, and late ones are refused
    const again = () => connectAgent(port, context)
    const connection = stack.use(await again().catch(again).catch(again))
    all.push({ connection, request: toBinary(BatchNewX509SVIDRequestSchema, request) })
  })
  return { all, [Symbol.dispose]: () => stack.dispose() }
}

/** Per second, and per second in which the machine did not stand still. */
function rateOf({ count, from, to }: Part, pauses: Pauses) {
  const still = pauses.during(from, to)
  const rate = (count * 1000) / (to - from)
  return { rate, sound: (count * 1000) / (to - from - still), still: (still * 100) / (to - from) }
}

interface Measured {
  readonly joins: Part
  readonly svids: Part
  readonly weather: Weather
  readonly memory: { readonly before: number; readonly peak: number }
  readonly bare: number
}

function resultOf({ joins, svids, weather, memory, bare }: Measured, pauses: Pauses): BenchResult {
  const [join, svid] = [rateOf(joins, pauses), rateOf(svids, pauses)]
  const rate = (what: string, it: typeof join, least: number): Goal => ({
    what: `${what} (the machine stood still ${rounded(it.still, 0)} % of the time; ${rounded(it.sound, 0)} without)`,
    ...{ measured: it.rate, unit: 'per second', limit: { least } },
  })
  const { rows, ok } = judge([
    {
      what: 'agents that have joined in the end',
      ...{ measured: joins.count, unit: '', limit: { least: agents } },
    },
    rate(`${joins.count} of ${agents} re-joins at once`, join, goals.joins),
    {
      what: `memory of the authority meanwhile, at most (before: ${rounded(memory.before)})`,
      ...{ measured: memory.peak, unit: 'MiB', limit: { most: goals.memory } },
    },
    rate(`${svids.count} SVIDs for at most ${connected} connected agents`, svid, goals.svids),
  ])
  return {
    rows: [
      ...rows,
      fact('attempts refused with RESOURCE_EXHAUSTED', weather.exhausted, ''),
      fact('of them with a delay', weather.delayed, ''),
      fact('connections that were refused, late or broken', weather.broken, ''),
    ],
    figure: rounded(join.rate, 0),
    unit: `re-joins per second of ${agents} at once, in ${rounded(memory.peak, 0)} MiB, then ${rounded(svid.rate, 0)} SVIDs per second (goal ${goals.svids})`,
    goal: goals.joins,
    peer: { name: 'bare TLS handshakes per second', figure: rounded(bare, 0) },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const bare = await handshakesPerSecond()
  const authority = stack.use(await startOurs(join(folder, 'ours')))
  const roots = await rootsOf(authority.socket)
  const nodes = (await createTokens(authority.socket, agents)).map(makeNode)
  authority.forgetPeak()
  const before = authority.memory()
  const pauses = stack.use(watchPauses())
  const { part: joins, joined, weather } = await storm(authority, roots, nodes)
  const memory = { before, peak: authority.peakMemory() }
  const pairs = nodes.flatMap((node, i) => {
    const it = joined[i]
    return it === undefined ? [] : [[node, it] as const]
  })
  using some = await connectSome(authority, roots, pairs.slice(0, connected))
  const svids = await issueAll(some.all)
  return resultOf({ joins, svids, weather, memory, bare }, pauses)
}

export const stormBench: Bench = { name: 'storm', run }

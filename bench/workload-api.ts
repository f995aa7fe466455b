// bench workload-api: what a new stream of a workload costs an agent until its first message, and what an agent
// keeps in memory for a thousand of them, ours beside a stock spire-agent below the same authority. Each stream has
// a connection of its own, as workloads have it.
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { testFolder } from '../test/support/folder.ts'
import { each } from './agents/crowd.ts'
import { openEntries, ownEntry } from './agents/entries.ts'
import { connectTo, fetchX509Svid, subscribe, type WorkloadStream } from './agents/workload.ts'
import { type Bench, type BenchResult, fact, judge, median, rounded } from './measure.ts'
import {
  type AgentProcess,
  type PreparedAgent,
  prepareNode,
  prepareStockAgent,
  startAgent,
  untilServed,
} from './servers/agents.ts'
import type { AuthorityProcess } from './servers/authorities.ts'
import { stockPrograms } from './servers/stock.ts'

const streams = 1000
/** at a time: workloads come one by one, and in bursts */
const inFlight = 20
const rounds = 3
/** milliseconds */
const [settling, patience] = [2000, 60_000]
/** of what a stock agent takes */
const goals = { cpu: 0.6, memory: 1.1 } as const

interface Follower extends PreparedAgent {
  readonly agent: AgentProcess
}

interface Measured {
  /** microseconds of CPU for each stream */
  readonly cpu: number
  /** MiB with all of them open, and after the last one has gone */
  readonly memory: number
  readonly after: number
}

/** Opens one; resolves with its first message. */
async function openStream(socket: string, all: AsyncDisposableStack): Promise<void> {
  const first = Promise.withResolvers<'message'>()
  const onMessage = () => first.resolve('message')
  const stream: WorkloadStream = subscribe(await connectTo(socket), {
    method: fetchX509Svid,
    onMessage,
  })
  all.use(stream)
  const outcome = await Promise.race([first.promise, stream.ended, late()])
  if (outcome !== 'message') throw new Error(`a stream at ${socket}: ${outcome}`)
}

const late = () => delay(patience, 'no message', { ref: false })

async function measure({ agent, socket }: Follower): Promise<Measured> {
  const before = agent.cpu()
  await using all = new AsyncDisposableStack()
  await each(streams, inFlight, () => openStream(socket, all))
  const cpu = (agent.cpu() - before) / streams
  await delay(settling)
  const memory = agent.memory()
  await all.disposeAsync()
  await delay(settling)
  return { cpu, memory, after: agent.memory() }
}

/** Started, with an SVID for who runs this. */
async function startFollower(
  authority: AuthorityProcess,
  prepared: PreparedAgent,
  stack: AsyncDisposableStack,
): Promise<Follower> {
  {
    using maker = openEntries(authority.socket)
    await maker.create([ownEntry(`/workload${prepared.parent}`, prepared.parent)])
  }
  const agent = stack.use(startAgent(prepared))
  await untilServed(prepared.socket)
  return { ...prepared, agent }
}

function resultOf(ours: readonly Measured[], stock: readonly Measured[]): BenchResult {
  const of = (all: readonly Measured[], what: keyof Measured) => median(all.map((it) => it[what]))
  const ratio = (what: keyof Measured) => of(ours, what) / of(stock, what)
  const beside = (what: keyof Measured, unit: string) =>
    `${rounded(of(ours, what))} ${unit}, spire-agent ${rounded(of(stock, what))} ${unit}`
  const { rows, ok } = judge([
    {
      what: `CPU of a new stream until its first message: ${beside('cpu', 'µs')}`,
      ...{ measured: ratio('cpu'), unit: 'of spire-agent', limit: { most: goals.cpu } },
    },
    {
      what: `memory with ${streams} open streams: ${beside('memory', 'MiB')}`,
      ...{ measured: ratio('memory'), unit: 'of spire-agent', limit: { most: goals.memory } },
    },
  ])
  const what = `memory once they have gone: ${beside('after', 'MiB')}`
  return {
    rows: [...rows, fact(what, ratio('after'), 'of spire-agent')],
    figure: rounded(ratio('cpu')),
    unit: `of the CPU of a spire-agent for a new stream, ${rounded(ratio('memory'))} of its memory with ${streams} open (goal ${goals.memory})`,
    goal: goals.cpu,
    peer: { name: 'spire-agent, µs CPU for each stream', figure: rounded(of(stock, 'cpu')) },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  const stock = await stockPrograms()
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const { authority, prepared: ours } = await prepareNode(folder, stack)
  const theirs = await prepareStockAgent(stock.agent, authority, join(folder, 'stock'))
  const followers = {
    ours: await startFollower(authority, ours, stack),
    stock: await startFollower(authority, theirs, stack),
  }
  const measured: Record<keyof typeof followers, Measured[]> = { ours: [], stock: [] }
  // the first round is for warming up
  for (let round = 0; round <= rounds; round++) {
    const [own, their] = [await measure(followers.ours), await measure(followers.stock)]
    if (round === 0) continue
    measured.ours.push(own)
    measured.stock.push(their)
  }
  return resultOf(measured.ours, measured.stock)
}

export const workloadApiBench: Bench = { name: 'workload-api', run }

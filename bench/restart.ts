// bench restart: an agent that is killed and started again while its authority is away, until a workload that
// waits for it has its SVID. The agent is the program as it is shipped. The physical limit is a Node that starts
// and does nothing.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { testFolder } from '../test/support/folder.ts'
import { openEntries, ownEntry } from './agents/entries.ts'
import { type Bench, type BenchResult, fact, judge, median, rounded } from './measure.ts'
import { type AgentProcess, followIds, prepareNode, startAgent } from './servers/agents.ts'
import type { AuthorityProcess } from './servers/authorities.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'

const rounds = 15
/** milliseconds */
const [goal, patience] = [200, 60_000]
const id = 'spiffe://example.org/waiting'

interface Start {
  readonly agent: AgentProcess
  /** of `performance.now()`: when it was started, and when the workload had its SVID */
  readonly from: number
  readonly to: number
  /** microseconds of CPU by then */
  readonly cpu: number
}

/** Starts an agent, for whose socket a workload waits already. */
async function startServed(socket: string, begin: () => AgentProcess): Promise<Start> {
  const stop = new AbortController()
  const served = Promise.withResolvers<number>()
  const following = followIds(
    socket,
    (ids) => {
      if (ids.includes(id)) served.resolve(performance.now())
    },
    AbortSignal.any([stop.signal, AbortSignal.timeout(patience)]),
  )
  const from = performance.now()
  const agent = begin()
  try {
    const late = following.then(() => {
      throw new Error(`the workload has no SVID after ${patience / 1000} s`)
    })
    const to = await Promise.race([served.promise, late])
    return { agent, from, to, cpu: agent.cpu() }
  } catch (error) {
    await agent.kill()
    throw error
  } finally {
    stop.abort()
    await following
  }
}

async function emptyStart(): Promise<number> {
  const began = performance.now()
  await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }), 'exit')
  return performance.now() - began
}

async function register({ socket }: AuthorityProcess, parent: string): Promise<void> {
  using maker = openEntries(socket)
  await maker.create([ownEntry('/waiting', parent)])
}

function resultOf(starts: readonly Start[], empty: readonly number[], pauses: Pauses): BenchResult {
  const took = starts.map(({ from, to }) => to - from)
  const still = starts.map(({ from, to }) => pauses.during(from, to))
  const figure = median(took)
  const limit = { most: goal }
  const { rows, ok } = judge([
    { what: 'killed, until served', measured: figure, unit: 'ms', limit },
  ])
  return {
    rows: [
      ...rows,
      fact('the fastest of them', Math.min(...took), 'ms'),
      fact('the slowest of them', Math.max(...took), 'ms'),
      fact('of it the machine stood still, median', median(still), 'ms'),
      fact('CPU of the agent by then, median', median(starts.map(({ cpu }) => cpu)) / 1000, 'ms'),
      fact('node -e 0, median', median(empty), 'ms'),
    ],
    figure: rounded(figure),
    unit: `ms from the start of a killed agent, its authority away, to a waiting workload's SVID, median of ${rounds}`,
    goal,
    peer: { name: 'node -e 0, ms', figure: rounded(median(empty)) },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const { authority, prepared } = await prepareNode(folder, stack)
  await register(authority, prepared.parent)
  const pauses = stack.use(watchPauses())
  const live = () => startServed(prepared.socket, () => startAgent(prepared))
  // what it holds is on the disk after a proper end, and so is what was compiled of the program
  for (let life = 0; life < 2; life++) await (await live()).agent[Symbol.asyncDispose]()
  await authority[Symbol.asyncDispose]()
  const [starts, empty]: [Start[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    const start = await live()
    await start.agent.kill()
    starts.push(start)
    empty.push(await emptyStart())
  }
  return resultOf(starts, empty, pauses)
}

export const restartBench: Bench = { name: 'restart', run }

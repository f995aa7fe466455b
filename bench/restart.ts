// bench restart: an agent that is killed and started again while its authority is away, until a workload that
// waits for it has its SVID. The agent is the program as it is shipped. The physical limit is a Node that starts
// and does nothing.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEntries } from './agents/entries.ts'
import { type Bench, type BenchResult, judge, median, rounded } from './measure.ts'
import { type AgentProcess, followIds, prepareOurAgent, startAgent } from './servers/agents.ts'
import { type AuthorityProcess, startOurs } from './servers/authorities.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'
import { buildShipped } from './servers/shipped.ts'

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
async function untilServed(socket: string, begin: () => AgentProcess): Promise<Start> {
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
  const trustDomain = 'example.org'
  await maker.create([
    {
      spiffeId: { trustDomain, path: '/waiting' },
      parentId: { trustDomain, path: parent },
      selectors: [{ type: 'unix', value: `uid:${process.getuid?.()}` }],
    },
  ])
}

function resultOf(starts: readonly Start[], empty: readonly number[], pauses: Pauses): BenchResult {
  const took = starts.map(({ from, to }) => to - from)
  const still = starts.map(({ from, to }) => pauses.during(from, to))
  const figure = median(took)
  const limit = { most: goal }
  const { rows, ok } = judge([
    { what: 'killed, until served', measured: figure, unit: 'ms', limit },
  ])
  const fact = (what: string, measured: number) => ({
    ...{ what, measured: rounded(measured), unit: 'ms', goal: '', met: '' },
  })
  return {
    rows: [
      ...rows,
      fact('the fastest of them', Math.min(...took)),
      fact('the slowest of them', Math.max(...took)),
      fact('of it the machine stood still, median', median(still)),
      fact('CPU of the agent by then, median', median(starts.map(({ cpu }) => cpu)) / 1000),
      fact('node -e 0, median', median(empty)),
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
  const folder = mkdtempSync(join(tmpdir(), 'castellan-bench-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const program = await buildShipped()
  const authority = stack.use(await startOurs(join(folder, 'ca')))
  const prepared = await prepareOurAgent(program, authority, join(folder, 'agent'))
  await register(authority, prepared.parent)
  const pauses = stack.use(watchPauses())
  const live = () => untilServed(prepared.socket, () => startAgent(prepared))
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

// bench start: an authority that comes back to 100 000 entries, beside a stock spire-server with as many: until
// it answers, what it keeps in memory, what it takes while nothing happens; ours also with a million.
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { rootsOf } from '../test/support/ca-client.ts'
import { testFolder } from '../test/support/folder.ts'
import { createEntries } from './agents/entries.ts'
import { type Bench, type BenchResult, judge, median, rounded } from './measure.ts'
import { type Prepared, prepareOurs, prepareStock, start } from './servers/authorities.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'
import { stockPrograms } from './servers/stock.ts'
import { agents, fillStock } from './start/fill-stock.ts'

const [many, most] = [100_000, 1_000_000]
const rounds = 3
/** milliseconds; a spire-server looks for changes every five seconds */
const [settling, resting] = [10_000, 20_000]
const goals = { seconds: 2, memory: 250, rest: 1 } as const
const goalsOfMost = { seconds: 20, memory: 1536 } as const

interface Start {
  /** seconds until it answered, and of those the ones in which the machine stood still */
  readonly seconds: number
  readonly still: number
  /** MiB after a while, and at most */
  readonly memory: number
  readonly peak: number
  /** % of a core */
  readonly rest: number
}

async function startOnce(prepared: Prepared, pauses: Pauses): Promise<Start> {
  const began = performance.now()
  await using authority = await start(prepared)
  await rootsOf(authority.socket)
  const ready = performance.now()
  await delay(settling)
  const [before, from] = [authority.cpu(), performance.now()]
  await delay(resting)
  const rest = (authority.cpu() - before) / 1e4 / ((performance.now() - from) / 1000)
  return {
    seconds: (ready - began) / 1000,
    still: pauses.during(began, ready) / 1000,
    memory: authority.memory(),
    peak: authority.peakMemory(),
    rest,
  }
}

async function fill(prepared: Prepared, count: number): Promise<void> {
  const parents = Array.from({ length: agents }, (_, i) => `/spire/agent/join_token/bench-${i}`)
  await using authority = await start(prepared)
  await createEntries(authority.socket, count, parents)
}

const medianOf = (starts: readonly Start[], what: keyof Start) =>
  median(starts.map((it) => it[what]))

function resultOf(
  ours: readonly Start[],
  stock: readonly Start[],
  million: readonly Start[],
): BenchResult {
  const goal = (what: string, measured: number, unit: string, limit: number) => ({
    ...{ what, measured, unit, limit: { most: limit } },
  })
  const of = (starts: readonly Start[], what: keyof Start) => rounded(medianOf(starts, what))
  const beside = (what: keyof Start) => `spire-server ${of(stock, what)}`
  const still = (starts: readonly Start[]) =>
    `of it the machine stood still ${starts.map((it) => rounded(it.still)).join(', ')}`
  const { rows, ok } = judge([
    goal(
      `${many} entries, until ready (${beside('seconds')}; ${still(ours)})`,
      medianOf(ours, 'seconds'),
      's',
      goals.seconds,
    ),
    goal(
      `memory at rest (at most ${of(ours, 'peak')}; ${beside('memory')}, at most ${of(stock, 'peak')})`,
      medianOf(ours, 'memory'),
      'MiB',
      goals.memory,
    ),
    goal(`CPU at rest (${beside('rest')})`, medianOf(ours, 'rest'), '% of a core', goals.rest),
    goal(
      `${most} entries, until ready (${still(million)})`,
      medianOf(million, 'seconds'),
      's',
      goalsOfMost.seconds,
    ),
    goal(
      `memory at rest (at most ${of(million, 'peak')})`,
      medianOf(million, 'memory'),
      'MiB',
      goalsOfMost.memory,
    ),
  ])
  return {
    rows,
    figure: of(ours, 'seconds'),
    unit: `s until ready with ${many} entries, ${of(ours, 'memory')} MiB (goal ${goals.memory}), ${of(ours, 'rest')} % of a core at rest (goal ${goals.rest})`,
    goal: goals.seconds,
    peer: { name: 'spire-server, s', figure: of(stock, 'seconds') },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  const { server: stock } = await stockPrograms()
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const ours = await prepareOurs(join(folder, 'ours'))
  await fill(ours, many)
  const theirs = await prepareStock(stock, join(folder, 'stock'))
  await fillStock(theirs, join(folder, 'stock'), many)
  const large = await prepareOurs(join(folder, 'large'))
  await fill(large, most)
  const pauses = stack.use(watchPauses())
  const measured: Record<'ours' | 'stock' | 'large', Start[]> = { ours: [], stock: [], large: [] }
  for (let round = 0; round < rounds; round++) {
    measured.ours.push(await startOnce(ours, pauses))
    measured.stock.push(await startOnce(theirs, pauses))
  }
  measured.large.push(await startOnce(large, pauses))
  return resultOf(measured.ours, measured.stock, measured.large)
}

export const startBench: Bench = { name: 'start', run }

// bench entries: what an entry costs to create, in batches of 50 over the local socket: the 10 000th below
// one parent beside the first ones, and ours beside a stock spire-server in the same run.
import { join } from 'node:path'
import { testFolder } from '../test/support/folder.ts'
import { type EntryMaker, entryOf, openEntries } from './agents/entries.ts'
import { type Bench, type BenchResult, judge, median, rounded } from './measure.ts'
import { type AuthorityProcess, startOurs, startStock } from './servers/authorities.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'
import { stockPrograms } from './servers/stock.ts'

const rounds = 7
const warmUp = 2
const batchSize = 50
/** batches: all that go below one parent, those that are compared, and those of the slower peer */
const [whole, part, ofStock] = [200, 10, 10]
const mostGrowth = 1.2
const timesStock = 10

interface Subject extends AsyncDisposable {
  readonly authority: AuthorityProcess
  readonly maker: EntryMaker
}

function subjectOf(authority: AuthorityProcess): Subject {
  const maker = openEntries(authority.socket)
  return {
    authority,
    maker,
    async [Symbol.asyncDispose]() {
      maker[Symbol.dispose]()
      await authority[Symbol.asyncDispose]()
    },
  }
}

interface Batch {
  /** of `performance.now()` */
  readonly from: number
  readonly to: number
  /** CPU microseconds per entry */
  readonly cost: number
}

/** The batches of one round, below a parent of their own. */
async function round(
  { authority, maker }: Subject,
  batches: number,
  number: number,
): Promise<readonly Batch[]> {
  const parent = `/spire/agent/join_token/bench-${number}`
  const done: Batch[] = []
  for (let batch = 0; batch < batches; batch++) {
    const entries = Array.from({ length: batchSize }, (_, i) =>
      entryOf(`r${number}-b${batch}-${i}`, parent),
    )
    const [from, before] = [performance.now(), authority.cpu()]
    await maker.create(entries)
    done.push({ from, to: performance.now(), cost: (authority.cpu() - before) / batchSize })
  }
  return done
}

/** Without the batches in which the machine stood still: it counts that as CPU of whoever ran. */
function mean(batches: readonly Batch[], pauses: Pauses): number {
  const sound = batches.filter(({ from, to }) => pauses.during(from, to) === 0)
  return sound.reduce((sum, { cost }) => sum + cost, 0) / sound.length
}

interface Costs {
  readonly first: number[]
  readonly last: number[]
  readonly ours: number[]
  readonly stock: number[]
}

function resultOf({ first, last, ours, stock }: Costs): BenchResult {
  // a round may have no sound batch at one of its ends
  const ratios = first.map((cost, i) => (last[i] ?? Number.NaN) / cost).filter(Number.isFinite)
  const growth = median(ratios)
  const sound = (values: readonly number[]) => median(values.filter(Number.isFinite))
  const [own, theirs] = [sound(ours), sound(stock)]
  const [at, count] = [part * batchSize, whole * batchSize]
  const { rows, ok } = judge([
    {
      what: `the last ${at} of ${count} entries below one parent (${rounded(sound(last))} µs CPU each) beside the first ${at} (${rounded(sound(first))})`,
      measured: growth,
      unit: '×',
      limit: { most: mostGrowth },
    },
    {
      what: `entries per CPU-second (${rounded(1e6 / own, 0)}) beside spire-server's (${rounded(1e6 / theirs, 0)}), batches of ${batchSize}`,
      measured: theirs / own,
      unit: '×',
      limit: { least: timesStock },
    },
  ])
  return {
    rows,
    figure: rounded(theirs / own),
    unit: `× spire-server's entries per CPU-second, the ${count}th below one parent at ${rounded(growth)} × the first (goal ${mostGrowth})`,
    goal: timesStock,
    peer: { name: 'spire-server, per CPU-second', figure: rounded(1e6 / theirs, 0) },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  const { server: stock } = await stockPrograms()
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const ours = stack.use(subjectOf(await startOurs(join(folder, 'ours'))))
  const theirs = stack.use(subjectOf(await startStock(stock, join(folder, 'stock'))))
  await using pauses = watchPauses()
  const costs: Costs = { first: [], last: [], ours: [], stock: [] }
  for (let number = 0; number < warmUp + rounds; number++) {
    const own = await round(ours, whole, number)
    const peer = await round(theirs, ofStock, number)
    if (number < warmUp) continue
    costs.first.push(mean(own.slice(0, part), pauses))
    costs.last.push(mean(own.slice(-part), pauses))
    costs.ours.push(mean(own, pauses))
    costs.stock.push(mean(peer, pauses))
  }
  return resultOf(costs)
}

export const entriesBench: Bench = { name: 'entries', run }

// bench propagate: from the creation of an entry to the SVID in a workload that waits, ours beside a stock pair
// and beside a stock agent below our authority.
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { testFolder } from '../test/support/folder.ts'
import { openEntries, ownEntry } from './agents/entries.ts'
import {
  type Bench,
  type BenchResult,
  fact,
  judge,
  median,
  percentile,
  rounded,
} from './measure.ts'
import {
  followIds,
  type PreparedAgent,
  prepareNode,
  prepareStockAgent,
  startAgent,
} from './servers/agents.ts'
import { type AuthorityProcess, prepareStock, start } from './servers/authorities.ts'
import { stockPrograms } from './servers/stock.ts'

/** entries of ours; a stock agent is asked fewer, for it takes seconds for each */
const [ours, theirs] = [100, 6]
/** milliseconds between two: they do not come in step with anybody's polling */
const between = () => 50 + Math.random() * 200
const goal = 250
const trustDomain = 'example.org'

/** Milliseconds for each of `count` entries, one after the other. */
async function propagate(
  { socket }: AuthorityProcess,
  { socket: workloadApi, parent }: PreparedAgent,
  count: number,
): Promise<readonly number[]> {
  const stop = new AbortController()
  let wanted: { readonly id: string; readonly resolve: (at: number) => void } | undefined
  const following = followIds(
    workloadApi,
    (ids) => {
      if (wanted !== undefined && ids.includes(wanted.id)) wanted.resolve(performance.now())
    },
    stop.signal,
  )
  using maker = openEntries(socket)
  const took: number[] = []
  // the first one is waited for, not counted: the agent may be joining still
  for (let number = 0; number <= count; number++) {
    const path = `/propagated${parent}-${number}`
    const { promise, resolve } = Promise.withResolvers<number>()
    wanted = { id: `spiffe://${trustDomain}${path}`, resolve }
    const asked = performance.now()
    await maker.create([ownEntry(path, parent)])
    const heard = await promise
    if (number > 0) took.push(heard - asked)
    await delay(between())
  }
  stop.abort()
  await following
  return took
}

async function run(): Promise<BenchResult> {
  const stock = await stockPrograms()
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const { authority, prepared } = await prepareNode(folder, stack)
  const server = stack.use(await start(await prepareStock(stock.server, join(folder, 'server'))))
  const below = {
    ours: prepared,
    mixed: await prepareStockAgent(stock.agent, authority, join(folder, 'mixed')),
    stock: await prepareStockAgent(stock.agent, server, join(folder, 'stock')),
  }
  for (const prepared of Object.values(below)) stack.use(startAgent(prepared))
  const own = await propagate(authority, below.ours, ours)
  const mixed = await propagate(authority, below.mixed, theirs)
  const pair = await propagate(server, below.stock, theirs)
  const p95 = percentile(own, 0.95)
  const { rows, ok } = judge([
    { what: `${ours} entries, p95`, measured: p95, unit: 'ms', limit: { most: goal } },
  ])
  return {
    rows: [
      ...rows,
      fact('the same, median', median(own), 'ms'),
      fact('a stock agent below our authority, median', median(mixed), 'ms'),
      fact('a stock agent below a stock server, median', median(pair), 'ms'),
    ],
    figure: rounded(p95),
    unit: `ms from an entry to its workload's SVID, p95 of ${ours}`,
    goal,
    peer: { name: 'the stock pair, median, ms', figure: rounded(median(pair)) },
    ok,
  }
}

export const propagateBench: Bench = { name: 'propagate', run }

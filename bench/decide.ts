// bench decide: a decision about a request whose attributes are read, by 10 to 100 000 policies that all
// guard one destination, beside other engines that were told the same.
import { compile } from '../policies/compile.ts'
import { decide } from '../policies/decide.ts'
import {
  type Bench,
  type BenchResult,
  fact,
  judge,
  median,
  percentile,
  rounded,
} from './measure.ts'
import { type Ask, casbinEngine, cedarEngine, linearEngine } from './policies/peers.ts'
import { asked, documentsOf, mesh, permissions, requestOf } from './policies/sets.ts'

const sizes = [10, 100, 1000, 10_000, 100_000] as const
// more than anybody asks at a time, few enough to stay in a cache like a request that was just read
const perRound = 1000
const rounds = 25
const repeated = 20

const now = () => process.hrtime.bigint()
const since = (start: bigint) => Number(now() - start)

interface Figures {
  readonly size: number
  /** nanoseconds */
  readonly mean: number
  readonly p99: number
  readonly first: number
}

/** Nanoseconds of CPU: what else the machine does is not counted. */
function cpuOf(work: () => void): number {
  const before = process.threadCpuUsage()
  work()
  const { user, system } = process.threadCpuUsage(before)
  return (user + system) * 1000
}

/** The least that any index does: one look for the caller and one for the path. */
function twoLookups(size: number): number {
  const all = permissions(size)
  const byCaller = new Map(all.map((it) => [it.principal, new Map([[it.exact, it]])]))
  const questions = asked(all, perRound)
  let found = 0
  const times: number[] = []
  for (let round = 0; round < rounds; round++) {
    const cost = cpuOf(() => {
      for (let again = 0; again < 10 * repeated; again++) {
        for (const { permission, path } of questions) {
          if (byCaller.get(permission.principal)?.get(path) !== undefined) found++
        }
      }
    })
    times.push(cost / (questions.length * 10 * repeated))
  }
  if (found === 0) throw new Error('nothing was found')
  return median(times)
}

/** Nanoseconds that reading the clock takes, which a single decision cannot be told apart from. */
function clockCost(): number {
  const costs: number[] = []
  for (let i = 0; i < 2000; i++) costs.push(since(now()))
  return median(costs)
}

function measureOurs(size: number): Figures {
  const all = permissions(size)
  const set = compile(documentsOf(all), { mesh })
  const questions = asked(all, perRound)
  const requests = questions.map(requestOf)
  set.guardOf(requests[0]?.destination ?? requestOf(questions[0] ?? never()).destination)
  const first = firstDecisions(all, set)
  for (const [i, request] of requests.entries()) {
    if (decide(set, request).allow !== questions[i]?.allowed) throw new Error('a wrong decision')
  }
  const means: number[] = []
  for (let round = 0; round < rounds; round++) {
    means.push(
      cpuOf(() => {
        for (let again = 0; again < repeated; again++) {
          for (const request of requests) decide(set, request)
        }
      }) /
        (requests.length * repeated),
    )
  }
  const cost = clockCost()
  const single: number[] = []
  for (let round = 0; round < rounds; round++) {
    for (const request of requests) {
      const start = now()
      decide(set, request)
      single.push(since(start) - cost)
    }
  }
  return { size, mean: median(means), p99: percentile(single, 0.99), first }
}

function never(): never {
  throw new Error('no requests')
}

/** The 99th percentile of the first decisions about callers that nobody asked about before. */
function firstDecisions(all: ReturnType<typeof permissions>, set: ReturnType<typeof compile>) {
  const some = all.slice(0, 2000)
  const times = asked(some, some.length).map((question) => {
    const request = requestOf(question)
    const start = now()
    decide(set, request)
    return since(start)
  })
  return percentile(times, 0.99)
}

/** Median nanoseconds of one answer; fewer questions for who takes long. */
function measureTheirs(ask: Ask, all: ReturnType<typeof permissions>, count: number): number {
  const questions = asked(all, count)
  const times: number[] = []
  for (const question of questions) {
    const start = now()
    const answer = ask(question)
    times.push(since(start))
    if (answer !== question.allowed) throw new Error('a wrong answer of a peer')
  }
  return times.reduce((sum, time) => sum + time, 0) / times.length
}

async function run(): Promise<BenchResult> {
  const figures = sizes.map(measureOurs)
  const at = (size: number) => figures.find((it) => it.size === size) ?? never()
  const compared = permissions(10_000)
  const lookups = twoLookups(10_000)
  const casbin = measureTheirs(await casbinEngine(compared), compared, 30)
  const cedar = measureTheirs(cedarEngine(compared), compared, 30)
  const linear = measureTheirs(linearEngine(compared), compared, 300)
  const { rows, ok } = judge([
    { what: 'mean, 10 000 policies', measured: at(10_000).mean, unit: 'ns', limit: { most: 1000 } },
    { what: 'p99, 10 000 policies', measured: at(10_000).p99, unit: 'ns', limit: { most: 2000 } },
    {
      what: 'mean, 100 000 against 1 000',
      measured: at(100_000).mean / at(1000).mean,
      unit: 'x',
      limit: { most: 1.5 },
    },
    {
      what: 'first decision of a caller, p99, 10 000',
      measured: at(10_000).first / 1000,
      unit: 'µs',
      limit: { most: 200 },
    },
  ])
  const plain = (what: string, nanoseconds: number) => fact(what, nanoseconds / 1000, 'µs', 3)
  return {
    rows: [
      ...rows,
      ...figures.map(({ size, mean }) => plain(`castellan, ${size} policies, mean`, mean)),
      plain('two lookups in Maps, 10 000', lookups),
      plain('a list without an index, 10 000', linear),
      plain('casbin, 10 000', casbin),
      plain('cedar-wasm, 10 000', cedar),
    ],
    figure: rounded(at(10_000).mean),
    unit: 'ns per decision at 10 000 policies, mean',
    goal: 1000,
    peer: { name: 'cedar-wasm, ns', figure: rounded(cedar, 0) },
    ok,
  }
}

export const decideBench: Bench = { name: 'decide', run }

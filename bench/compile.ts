// bench compile: 10 000 policies that are read, made into what one destination decides with; and what
// each of them takes in memory.
import { compile } from '../policies/compile.ts'
import { decide } from '../policies/decide.ts'
import { type Bench, type BenchResult, fact, judge, median, rounded } from './measure.ts'
import { asked, documentsOf, mesh, permissions, requestOf } from './policies/sets.ts'

const size = 10_000
const rounds = 9
const goal = 50

async function run(): Promise<BenchResult> {
  const all = permissions(size)
  const [question] = asked(all, 1)
  if (question === undefined) throw new Error('no question')
  const request = requestOf(question)
  const times: number[] = []
  const copies: number[] = []
  for (let round = 0; round < rounds; round++) {
    const documents = documentsOf(all)
    const start = performance.now()
    const set = compile(documents, { mesh })
    set.guardOf(request.destination)
    times.push(performance.now() - start)
    if (!decide(set, request).allow) throw new Error('a wrong decision')
    const before = performance.now()
    // the physical limit: each policy touched and put into a table once
    new Map(documents.policies.map((policy) => [policy.rules[0]?.from?.[0]?.source, policy]))
    copies.push(performance.now() - before)
  }
  const documents = documentsOf(all)
  const set = compile(documents, { mesh })
  globalThis.gc?.()
  const memory = process.memoryUsage().heapUsed
  set.guardOf(request.destination)
  globalThis.gc?.()
  const perPolicy = (process.memoryUsage().heapUsed - memory) / size
  const { rows, ok } = judge([
    {
      what: '10 000 policies, compiled',
      measured: median(times),
      unit: 'ms',
      limit: { most: goal },
    },
  ])
  return {
    rows: [...rows, fact('memory of a compiled policy', perPolicy, 'bytes')],
    figure: rounded(median(times)),
    unit: 'ms for 10 000 policies',
    goal,
    peer: { name: 'a Map of them, ms', figure: rounded(median(copies)) },
    ok,
  }
}

export const compileBench: Bench = { name: 'compile', run }

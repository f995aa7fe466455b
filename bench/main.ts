// `npm run bench -- NAME...`: each benchmark with its peer in the same run, and whether the goal is met.
import { hasCode } from '../spiffe/errors.ts'
import type { Bench, BenchResult } from './measure.ts'

// loaded when it is their turn: each brings its own servers and libraries
const benches: readonly { name: string; load: () => Promise<Bench> }[] = [
  { name: 'authz', load: async () => (await import('./authz.ts')).authzBench },
  { name: 'compile', load: async () => (await import('./compile.ts')).compileBench },
  { name: 'decide', load: async () => (await import('./decide.ts')).decideBench },
  { name: 'entries', load: async () => (await import('./entries.ts')).entriesBench },
  { name: 'envoy', load: async () => (await import('./envoy.ts')).envoyBench },
  { name: 'eval', load: async () => (await import('./eval.ts')).evalBench },
  { name: 'grpc', load: async () => (await import('./grpc.ts')).grpcBench },
  { name: 'identify', load: async () => (await import('./identify.ts')).identifyBench },
  { name: 'issue', load: async () => (await import('./issue.ts')).issueBench },
  { name: 'issue-grpc', load: async () => (await import('./issue-grpc.ts')).issueGrpcBench },
  { name: 'pipe', load: async () => (await import('./pipe.ts')).pipeBench },
  { name: 'propagate', load: async () => (await import('./propagate.ts')).propagateBench },
  { name: 'restart', load: async () => (await import('./restart.ts')).restartBench },
  { name: 'rotate', load: async () => (await import('./rotate.ts')).rotateBench },
  { name: 'rotate-node', load: async () => (await import('./rotate-node.ts')).rotateNodeBench },
  { name: 'start', load: async () => (await import('./start.ts')).startBench },
  { name: 'storm', load: async () => (await import('./storm.ts')).stormBench },
  { name: 'sync', load: async () => (await import('./sync.ts')).syncBench },
  {
    name: 'workload-api',
    load: async () => (await import('./workload-api.ts')).workloadApiBench,
  },
]

function verdict(name: string, { figure, unit, goal, peer, ok }: BenchResult): string {
  const against = `goal ${goal}, ${peer.name} ${peer.figure}`
  return `bench ${name}: ${figure} ${unit} (${against}) ${ok ? 'ok' : 'short'}`
}

async function runAll(wanted: readonly string[]): Promise<number> {
  let code = 0
  for (const { name, load } of benches) {
    if (!wanted.includes(name)) continue
    const bench = await load()
    const result = await bench.run()
    console.table(result.rows)
    console.log(verdict(name, result))
    if (!result.ok) code = 1
  }
  return code
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes('--list')) {
    for (const { name } of benches) console.log(name)
    return 0
  }
  const unknown = args.filter((wanted) => !benches.some(({ name }) => name === wanted))
  if (args.length > 0 && unknown.length === 0) return runAll(args)
  const what = args.length === 0 ? 'which one?' : `none is named ${unknown.join(', ')};`
  console.error(`bench: ${what} --list names them all`)
  return 2
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  if (!hasCode(error, 'ERR_UNAVAILABLE')) throw error
  console.error(`bench: ${error.message}`)
  return 3
})

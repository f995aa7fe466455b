// bench restart: an agent that is killed and started again while its authority is away, until a workload that
// waits for it has its SVID. The physical limit is a Node that starts and does nothing.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEntries } from './agents/entries.ts'
import { type Bench, type BenchResult, judge, median, rounded } from './measure.ts'
import { followIds, prepareOurAgent, startAgent } from './servers/agents.ts'
import { type AuthorityProcess, startOurs } from './servers/authorities.ts'

const rounds = 9
const goal = 200
const id = 'spiffe://example.org/waiting'

/** Milliseconds from `start` until the workload has its SVID. */
async function untilServed(socket: string, start: () => void): Promise<number> {
  const stop = new AbortController()
  const served = Promise.withResolvers<number>()
  const began = performance.now()
  start()
  const following = followIds(
    socket,
    (ids) => {
      if (ids.includes(id)) served.resolve(performance.now() - began)
    },
    AbortSignal.any([stop.signal, AbortSignal.timeout(120_000)]),
  )
  try {
    return await Promise.race([served.promise, following.then(() => Number.NaN)])
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

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-bench-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const authority = await startOurs(join(folder, 'ca'))
  const prepared = await prepareOurAgent(authority, join(folder, 'agent'))
  await register(authority, prepared.parent)
  let agent = startAgent(prepared)
  stack.defer(() => agent[Symbol.asyncDispose]())
  await untilServed(prepared.socket, () => {})
  // what it holds is on the disk a moment later
  await agent[Symbol.asyncDispose]()
  agent = startAgent(prepared)
  await untilServed(prepared.socket, () => {})
  await authority[Symbol.asyncDispose]()
  const [served, empty]: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    await agent.kill()
    served.push(
      await untilServed(prepared.socket, () => {
        agent = startAgent(prepared)
      }),
    )
    empty.push(await emptyStart())
  }
  const figure = median(served)
  const { rows, ok } = judge([
    { what: 'killed, until served', measured: figure, unit: 'ms', limit: { most: goal } },
  ])
  const slowest = {
    what: 'the slowest of them',
    measured: rounded(Math.max(...served)),
    unit: 'ms',
  }
  return {
    rows: [...rows, { ...slowest, goal: '', met: '' }],
    figure: rounded(figure),
    unit: `ms from the start of a killed agent, its authority away, to a waiting workload's SVID, median of ${rounds}`,
    goal,
    peer: { name: 'node -e 0, ms', figure: rounded(median(empty)) },
    ok,
  }
}

export const restartBench: Bench = { name: 'restart', run }

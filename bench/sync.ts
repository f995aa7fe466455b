// bench sync: how long after an entry's creation the agent that it concerns has heard of it, among 5 000
// agents with a Control stream each and 100 000 entries; and what an idle agent costs.
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createSecureContext } from 'node:tls'
import { newKeys, rootsOf } from '../test/support/ca-client.ts'
import { makeCsr } from '../test/support/csr.ts'
import { testFolder } from '../test/support/folder.ts'
import { type AgentConnection, connectAgent } from './agents/connection.ts'
import { attest, contextOf, createTokens, each, type Joined } from './agents/crowd.ts'
import { createEntries, entryOf, openEntries } from './agents/entries.ts'
import { followControl, type Heard } from './agents/follow.ts'
import {
  type Bench,
  type BenchResult,
  fact,
  judge,
  median,
  percentile,
  rounded,
} from './measure.ts'
import { type AuthorityProcess, prepareOurs, start } from './servers/authorities.ts'
import { type Pauses, watchPauses } from './servers/pauses.ts'

const agents = 5000
const entries = 100_000
const changes = 1000
/** milliseconds between two changes: more than one takes */
const changeEvery = 20
const inFlight = 32
/** milliseconds: whole heartbeats of the streams */
const idleTime = 60_000
const goals = { p50: 200, p99: 1000, bytes: 100, reads: 0 } as const

async function joinAll({ port, socket }: AuthorityProcess, roots: string, csr: Uint8Array) {
  const tokens = await createTokens(socket, agents)
  // as many as may join over one connection at a time
  using connection = await connectAgent(port, createSecureContext({ ca: roots }))
  const joined: Joined[] = []
  await each(agents, inFlight, async (index) => {
    const evidence = { type: 'join_token', token: tokens[index] ?? '', csr }
    const { answer, joined: agent } = await attest(connection, evidence)
    if (agent === undefined) throw new Error(`an agent cannot join: ${answer.message}`)
    joined[index] = agent
  })
  return joined
}

/** Every agent of `joined` with a connection and a stream of its own, each with its snapshot. */
async function followAll(
  joined: readonly Joined[],
  connect: (agent: Joined) => Promise<AgentConnection>,
  onHeard: (heard: Heard) => void,
): Promise<Disposable> {
  const stack = new DisposableStack()
  const follow = async (agent: Joined, index: number) => {
    const connection = stack.use(await connect(agent))
    await followControl(connection, index, onHeard)
  }
  await each(joined.length, inFlight, async (index) => {
    const agent = joined[index]
    if (agent === undefined) return
    // a machine that stands still for long makes handshakes late, and late ones are refused
    const again = () => follow(agent, index)
    await again().catch(again).catch(again)
  })
  return stack
}

interface Change {
  /** of `performance.now()`: asked for, answered, heard */
  readonly asked: number
  readonly answered: number
  readonly heard: number
}

/** Creates entries below one agent after another; `waiting` is told who has heard of what. */
async function makeChanges(
  socket: string,
  joined: readonly Joined[],
  waiting: Map<string, (heard: Heard) => void>,
): Promise<readonly Change[]> {
  using maker = openEntries(socket)
  const done: Promise<Change>[] = []
  for (let number = 0; number < changes; number++) {
    const index = (number * 2654435761) % joined.length
    const id = `change-${number}`
    const { promise, resolve, reject } = Promise.withResolvers<Heard>()
    waiting.set(id, (heard) =>
      heard.agent === index ? resolve(heard) : reject(new Error('told to another agent')),
    )
    const asked = performance.now()
    const created = maker.create([{ ...entryOf(id, joined[index]?.path ?? ''), id }])
    const change = async () => {
      await created
      const answered = performance.now()
      return { asked, answered, heard: (await promise).at }
    }
    done.push(change())
    await delay(changeEvery)
  }
  return Promise.all(done)
}

/** Until an entry that every agent has to look at (its parent is the server) was told to the last one. */
async function aliasTime(socket: string, count: () => number): Promise<number> {
  using maker = openEntries(socket)
  const before = count()
  const asked = performance.now()
  await maker.create([entryOf('alias', '/spire/server')])
  while (count() - before < agents) await delay(5)
  return performance.now() - asked
}

async function readsOf({ child }: AuthorityProcess): Promise<number> {
  const answer = once(child, 'message')
  child.send('reads')
  return Number((await answer)[0])
}

/** Per agent: bytes per second, both ways, and reads of the store per minute. */
async function idleCosts(authority: AuthorityProcess) {
  const began = performance.now()
  const before = { bytes: authority.bytes(), reads: await readsOf(authority), cpu: authority.cpu() }
  await delay(idleTime)
  const seconds = (performance.now() - began) / 1000
  const reads = (await readsOf(authority)) - before.reads
  return {
    bytes: (authority.bytes() - before.bytes) / seconds / agents,
    reads: (reads * 60) / seconds / agents,
    cpu: (authority.cpu() - before.cpu) / 1e4 / seconds,
  }
}

interface Measured {
  readonly all: readonly Change[]
  readonly alias: number
  readonly idle: { readonly bytes: number; readonly reads: number; readonly cpu: number }
  readonly memory: number
}

function resultOf({ all, alias, idle, memory }: Measured, pauses: Pauses): BenchResult {
  const latencies = all.map(({ asked, heard }) => heard - asked)
  const sound = all
    .filter(({ asked, heard }) => pauses.during(asked, heard) === 0)
    .map(({ asked, heard }) => heard - asked)
  const [first, last] = [all[0]?.asked ?? 0, all.at(-1)?.heard ?? 0]
  const still = pauses.during(first, last) / (last - first)
  const [p50, p99] = [median(latencies), percentile(latencies, 0.99)]
  const { rows, ok } = judge([
    { what: 'change to agent, p50', measured: p50, unit: 'ms', limit: { most: goals.p50 } },
    { what: 'change to agent, p99', measured: p99, unit: 'ms', limit: { most: goals.p99 } },
    {
      what: 'an idle agent, both ways',
      measured: idle.bytes,
      unit: 'bytes/s',
      limit: { most: goals.bytes },
    },
    {
      what: 'reads of the store for an idle agent',
      measured: rounded(idle.reads, 1),
      unit: 'per minute',
      limit: { most: goals.reads },
    },
  ])
  return {
    rows: [
      ...rows,
      fact('time in which the machine stood still', still * 100, '%'),
      fact(`p99 of the ${sound.length} changes without`, percentile(sound, 0.99), 'ms'),
      fact('an entry that all agents look at, until the last', alias, 'ms'),
      fact('CPU of the idle authority', idle.cpu, '% of a core'),
      fact('memory with all streams open', memory, 'MiB'),
    ],
    figure: rounded(p50),
    unit: `ms from an entry's creation to its agent, median of ${changes} among ${agents} agents and ${entries} entries, p99 ${rounded(p99)} ms (goal ${goals.p99})`,
    goal: goals.p50,
    peer: {
      name: 'the answer to the creation itself, ms',
      figure: rounded(median(all.map(({ asked, answered }) => answered - asked))),
    },
    ok,
  }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(testFolder()).path
  const counting = ['--import', join(import.meta.dirname, 'servers/count-reads.ts')]
  const authority = stack.use(await start(await prepareOurs(folder, counting), 'ipc'))
  const roots = await rootsOf(authority.socket)
  // one key for all: what is measured is not theirs
  const keys = newKeys()
  const joined = await joinAll(authority, roots, makeCsr(keys))
  const paths = joined.map(({ path }) => path)
  await createEntries(authority.socket, entries, paths)
  let told = 0
  const waiting = new Map<string, (heard: Heard) => void>()
  const connect = (agent: Joined) =>
    connectAgent(authority.port, contextOf(roots, agent, keys.privateKey))
  stack.use(
    await followAll(joined, connect, (heard) => {
      told++
      for (const id of heard.entries) waiting.get(id)?.(heard)
    }),
  )
  const pauses = stack.use(watchPauses())
  const all = await makeChanges(authority.socket, joined, waiting)
  const alias = await aliasTime(authority.socket, () => told)
  const idle = await idleCosts(authority)
  return resultOf({ all, alias, idle, memory: authority.memory() }, pauses)
}

export const syncBench: Bench = { name: 'sync', run }

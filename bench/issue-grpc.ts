// bench issue-grpc: certificates per CPU-second of an authority, end to end through BatchNewX509SVID over
// mutual TLS from one agent, beside a stock spire-server in the same run. Ours records each of them durably
// before it is delivered; SPIRE keeps none.
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Agent } from '../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { SVID } from '../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { attest, connectLocally, connectTls, newKeys, rootsOf } from '../test/support/ca-client.ts'
import { makeCsr } from '../test/support/csr.ts'
import { testFolder } from '../test/support/folder.ts'
import { type Bench, type BenchResult, interleave, rounded } from './measure.ts'
import { type AuthorityProcess, startOurs, startStock } from './servers/authorities.ts'
import { stockPrograms } from './servers/stock.ts'

const goal = 3
const batchGoal = 2.5
const rounds = 9
/** calls of a round: about as many certificates either way */
const singles = 200
const batches = 4
const batchSize = 100

interface Subject extends AsyncDisposable {
  /** CPU microseconds per certificate of `calls` calls for `size` each, one after the other. */
  round(calls: number, size: number): Promise<number>
}

/** An agent with one entry below it, connected to `authority`. */
async function subjectOf(authority: AuthorityProcess): Promise<Subject> {
  using local = connectLocally(authority.socket)
  const roots = await rootsOf(authority.socket)
  const { value: token } = await local.client(Agent).createJoinToken({ ttl: 600 })
  using joining = connectTls(authority.port, roots)
  const agent = await attest(joining, token)
  const { results } = await local.client(Entry).batchCreateEntry({
    entries: [
      {
        spiffeId: { trustDomain: 'example.org', path: '/ns/bench/sa/workload' },
        parentId: {
          trustDomain: 'example.org',
          path: agent.id.slice('spiffe://example.org'.length),
        },
        selectors: [{ type: 'unix', value: 'uid:1000' }],
      },
    ],
  })
  const entryId = results[0]?.entry?.id ?? ''
  const connection = connectTls(authority.port, roots, agent)
  const client = connection.client(SVID)
  const csr = makeCsr(newKeys())
  const ask = async (size: number): Promise<number> => {
    const params = Array.from({ length: size }, () => ({ entryId, csr }))
    const answer = await client.batchNewX509SVID({ params })
    return answer.results.filter(({ status }) => status?.code === 0).length
  }
  // a stock server looks for new entries every few seconds
  while ((await ask(1)) === 0) await delay(200)
  return {
    async round(calls, size) {
      const before = authority.cpu()
      for (let call = 0; call < calls; call++)
        if ((await ask(size)) !== size) throw new Error('a certificate was refused')
      return (authority.cpu() - before) / (calls * size)
    },
    async [Symbol.asyncDispose]() {
      connection[Symbol.dispose]()
      await authority[Symbol.asyncDispose]()
    },
  }
}

async function run(): Promise<BenchResult> {
  const { server: stock } = await stockPrograms()
  await using stack = new AsyncDisposableStack()
  const disk = stack.use(testFolder()).path
  const memory = stack.use(testFolder('/dev/shm')).path
  const ours = stack.use(await subjectOf(await startOurs(join(disk, 'ours'))))
  const theirs = stack.use(await subjectOf(await startStock(stock, join(disk, 'stock'))))
  const inMemory = stack.use(await subjectOf(await startOurs(memory)))
  const of = (subject: Subject) => [
    { name: 'one by one', run: () => subject.round(singles, 1) },
    { name: 'batches', run: () => subject.round(batches, batchSize) },
  ]
  const measured = await interleave([...of(ours), ...of(theirs), ...of(inMemory)], rounds, 2)
  const [one = 0, batch = 0, stockOne = 0, stockBatch = 0, fastOne = 0, fastBatch = 0] = measured
  const row = (what: string, single: number, batched: number) => ({
    what,
    'one by one, per CPU-second': rounded(1e6 / single, 0),
    ratio: rounded(stockOne / single),
    'batches of 100, per CPU-second': rounded(1e6 / batched, 0),
    'ratio ': rounded(stockBatch / batched),
  })
  const [figure, batched] = [stockOne / one, stockBatch / batch]
  return {
    rows: [
      row('castellan, each recorded durably', one, batch),
      row('castellan, recorded in memory (tmpfs)', fastOne, fastBatch),
      row('stock spire-server, none recorded', stockOne, stockBatch),
    ],
    figure: rounded(figure),
    unit: `× spire-server's certificates per CPU-second one by one, ${rounded(batched)} × in batches of 100 (goal ${batchGoal})`,
    goal,
    peer: { name: 'spire-server, per CPU-second', figure: rounded(1e6 / stockOne, 0) },
    ok: figure >= goal && batched >= batchGoal,
  }
}

export const issueGrpcBench: Bench = { name: 'issue-grpc', run }

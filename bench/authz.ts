// bench authz: the server's CPU for one decision over ext_authz, with 10 000 policies, against a server of grpc-js
// that gives the same bytes to whatever is asked.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import { createClient } from '@connectrpc/connect'
import { issueDev, makeDevCa } from '../certs-dev/authority.ts'
import { openTransport } from '../client/transport.ts'
import {
  Authorization,
  CheckRequestSchema,
} from '../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { toPem } from '../spiffe/pem.ts'
import { openLoad, question } from './authz-load.ts'
import { type Bench, type BenchResult, interleave, percentile, rounded } from './measure.ts'

/** connections, and questions at once on each */
const shapes = [
  [1, 1],
  [2, 32],
  [8, 16],
  [64, 1],
] as const
const names = ['bare', 'whole', 'grpc-js'] as const
const calls = 10_000
const rounds = 5
const warmUp = 2
// at 2x32
const goals = { bare: 6, whole: 10, p99: 1, ratio: 8 } as const

const hour = 3_600_000

interface Subject extends AsyncDisposable {
  readonly path: string
  cpu(): Promise<number>
}

async function answerOf(child: ChildProcess): Promise<number> {
  const [value] = await once(child, 'message', { signal: AbortSignal.timeout(60_000) })
  if (typeof value !== 'number') throw new TypeError(`the server said ${value}`)
  return value
}

async function startSubject(name: string, folder: string, root: string): Promise<Subject> {
  const path = join(folder, `${name}.sock`)
  const child = fork(join(import.meta.dirname, 'authz-server.ts'), [name, path, root])
  await answerOf(child)
  return {
    path,
    cpu() {
      const value = answerOf(child)
      child.send('cpu')
      return value
    },
    async [Symbol.asyncDispose]() {
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    },
  }
}

function makeQuestion() {
  const now = Date.now()
  const root = makeDevCa({ name: 'root', notBefore: now - hour, notAfter: now + 24 * hour })
  const id = 'spiffe://example.org/ns/shop/sa/client-5000'
  const { chain } = issueDev(root, { id, notBefore: now - 60_000, notAfter: now + hour })
  const [leaf = Buffer.alloc(0)] = chain
  return {
    root: root.certificate.toString('base64'),
    body: question(encodeURIComponent(toPem(leaf, 'CERTIFICATE'))),
  }
}

/** Of a decision: what would be measured otherwise is how fast everything is denied. */
async function demandAllowed({ path }: Subject, body: Uint8Array): Promise<void> {
  using local = openTransport({ kind: 'unix', path })
  const request = fromBinary(CheckRequestSchema, body.subarray(5))
  const { status } = await createClient(Authorization, local.transport).check(request)
  if (status?.code !== 0) throw new Error(`${path}: ${status?.message}`)
}

interface Measured {
  readonly cpu: readonly number[]
  /** milliseconds, by subject */
  readonly waits: readonly (readonly number[])[]
}

async function measure(
  subjects: readonly Subject[],
  body: Uint8Array,
  [connections, streams]: readonly [number, number],
): Promise<Measured> {
  using stack = new DisposableStack()
  const waits: number[][] = subjects.map(() => [])
  const competitors: { name: string; run: () => Promise<number> }[] = []
  for (const [i, { path, cpu }] of subjects.entries()) {
    const load = stack.use(await openLoad(path, { body, connections, streams }))
    const told = waits[i] ?? []
    competitors.push({
      name: path,
      async run() {
        const before = await cpu()
        await load.ask(calls, (ms) => void told.push(ms))
        return ((await cpu()) - before) / calls
      },
    })
  }
  return { cpu: await interleave(competitors, rounds, warmUp), waits }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-bench-'))
  stack.defer(() => rmSync(folder, { recursive: true }))
  const { root, body } = makeQuestion()
  const subjects: Subject[] = []
  for (const name of names) subjects.push(stack.use(await startSubject(name, folder, root)))
  for (const subject of subjects) await demandAllowed(subject, body)
  const rows: Record<string, string | number>[] = []
  let [ok, figure, against] = [false, Number.NaN, Number.NaN]
  for (const shape of shapes) {
    const { cpu, waits } = await measure(subjects, body, shape)
    const [bare = Number.NaN, whole = Number.NaN, peer = Number.NaN] = cpu
    const p99 = waits.map((it) => percentile(it.slice(warmUp * calls), 0.99))
    const row = {
      'connections x streams': shape.join('x'),
      'bare, µs': rounded(bare),
      'whole, µs': rounded(whole),
      'grpc-js, µs': rounded(peer),
      'bare p99, ms': rounded(p99[0] ?? Number.NaN),
      'whole p99, ms': rounded(p99[1] ?? Number.NaN),
      'grpc-js p99, ms': rounded(p99[2] ?? Number.NaN),
    }
    rows.push(row)
    if (shape.join('x') !== '2x32') continue
    const isQuick = bare <= goals.bare && whole <= goals.whole && peer / bare >= goals.ratio
    ok = isQuick && (p99[1] ?? Number.NaN) < goals.p99
    figure = whole
    against = peer
  }
  return {
    ...{ rows, figure: rounded(figure), ok, goal: goals.whole },
    unit: 'µs of CPU for a decision at 2x32',
    peer: { name: 'grpc-js', figure: rounded(against) },
  }
}

export const authzBench: Bench = { name: 'authz', run }

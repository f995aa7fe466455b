// bench authz: the server's CPU for one decision over ext_authz, with 10 000 policies, against a server of grpc-js
// that gives the same bytes to whatever is asked, and against one of grpc-go that decides by OPA's library.
import { fromBinary } from '@bufbuild/protobuf'
import { createClient } from '@connectrpc/connect'
import { issueDev, makeDevCa } from '../certs-dev/authority.ts'
import { openTransport } from '../client/transport.ts'
import {
  Authorization,
  CheckRequestSchema,
} from '../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { toPem } from '../spiffe/pem.ts'
import { testFolder } from '../test/support/folder.ts'
import { type Load, openLoad, question } from './authz-load.ts'
import { type Subject, startOpa, startSubject } from './authz-subjects.ts'
import {
  type Bench,
  type BenchResult,
  type Competitor,
  interleave,
  percentile,
  rounded,
} from './measure.ts'

/** connections, and questions at once on each */
const shapes = [
  [1, 1],
  [2, 32],
  [8, 16],
  [64, 1],
] as const
/** whose figures the goals are about */
const judged = shapes[1]
const names = ['bare', 'whole', 'grpc-js'] as const
const calls = 10_000
const rounds = 5
const warmUp = 3
/** questions a second for how long one waits: asked one for an answer, it would be the length of the queue */
const pace = 2000
const goals = { bare: 6, whole: 10, p99: 1, ratio: 8, opa: 20 } as const

// those that do not give the same answer to everything
const deciding: readonly string[] = ['whole', 'OPA']
const permissionDenied = 7

const hour = 3_600_000

function makeQuestions() {
  const now = Date.now()
  const root = makeDevCa({ name: 'root', notBefore: now - hour, notAfter: now + 24 * hour })
  const id = 'spiffe://example.org/ns/shop/sa/client-5000'
  const { chain } = issueDev(root, { id, notBefore: now - 60_000, notAfter: now + hour })
  const [leaf = Buffer.alloc(0)] = chain
  const certificate = encodeURIComponent(toPem(leaf, 'CERTIFICATE'))
  return {
    root: root.certificate.toString('base64'),
    body: question(certificate),
    /** what another one may */
    forbidden: question(certificate, '/api/5001/items?page=2'),
  }
}

async function codeOf({ path }: Subject, body: Uint8Array): Promise<number | undefined> {
  using local = openTransport({ kind: 'unix', path })
  const request = fromBinary(CheckRequestSchema, body.subarray(5))
  const { status } = await createClient(Authorization, local.transport).check(request)
  return status?.code
}

/** What would be measured otherwise is how fast everything is denied, or by those that decide, allowed. */
async function demandDecisions(
  subjects: readonly Subject[],
  { body, forbidden }: ReturnType<typeof makeQuestions>,
): Promise<void> {
  for (const subject of subjects) {
    const code = await codeOf(subject, body)
    if (code !== 0) throw new Error(`${subject.name} denies: ${code}`)
    if (!deciding.includes(subject.name)) continue
    const other = await codeOf(subject, forbidden)
    if (other !== permissionDenied) throw new Error(`${subject.name} does not deny: ${other}`)
  }
}

interface Measured {
  /** microseconds for a decision */
  readonly cpu: number
  /** milliseconds that one of a hundred waits for longer, at a steady rate; where that is judged */
  readonly p99: number | undefined
}

/** By the subject's name. */
type Results = ReadonlyMap<string, Measured>
const nothing: Measured = { cpu: Number.NaN, p99: undefined }

/** How long answers take at a steady rate: the middle of some rounds. */
async function p99Of(load: Load): Promise<number> {
  const rounds99: number[] = []
  for (let round = 0; round < rounds; round++) {
    const waits: number[] = []
    await load.pace(pace, pace, (ms) => void waits.push(ms))
    rounds99.push(percentile(waits, 0.99))
  }
  return percentile(rounds99, 0.5)
}

async function measure(
  subjects: readonly Subject[],
  body: Uint8Array,
  shape: (typeof shapes)[number],
): Promise<Results> {
  const [connections, streams] = shape
  using stack = new DisposableStack()
  const competitors: (Competitor & { readonly load: Load })[] = []
  for (const { name, path, cpu } of subjects) {
    const load = stack.use(await openLoad(path, { body, connections, streams }))
    competitors.push({
      ...{ name, load },
      async run() {
        const before = await cpu()
        await load.ask(calls)
        return ((await cpu()) - before) / calls
      },
    })
  }
  const cpus = await interleave(competitors, rounds, warmUp)
  const results = new Map<string, Measured>()
  for (const [i, { name, load }] of competitors.entries()) {
    const p99 = shape === judged ? await p99Of(load) : undefined
    results.set(name, { cpu: cpus[i] ?? Number.NaN, p99 })
  }
  return results
}

const opaRatio = (results: Results): number =>
  (results.get('OPA') ?? nothing).cpu / (results.get('whole') ?? nothing).cpu

function rowOf(shape: string, results: Results): Record<string, string | number> {
  const all = [...results]
  return {
    'connections x streams': shape,
    ...Object.fromEntries(all.map(([name, { cpu }]) => [`${name}, µs`, rounded(cpu)])),
    ...Object.fromEntries(
      all.flatMap(([name, { p99 }]) =>
        p99 === undefined ? [] : [[`${name} p99, ms`, rounded(p99)]],
      ),
    ),
    ...(results.has('OPA')
      ? { [`OPA / whole, goal ${goals.opa}`]: rounded(opaRatio(results)) }
      : {}),
  }
}

/** A peer that this machine cannot build does not make the figure short. */
function isMet(results: Results): boolean {
  const [bare = nothing, whole = nothing, peer = nothing] = names.map((it) => results.get(it))
  const isQuick =
    bare.cpu <= goals.bare && whole.cpu <= goals.whole && (whole.p99 ?? Infinity) < goals.p99
  const isAhead = peer.cpu / bare.cpu >= goals.ratio
  return isQuick && isAhead && (!results.has('OPA') || opaRatio(results) >= goals.opa)
}

async function startAll(stack: AsyncDisposableStack, root: string): Promise<Subject[]> {
  const folder = stack.use(testFolder()).path
  const subjects: Subject[] = []
  for (const name of names) subjects.push(stack.use(await startSubject(name, folder, root)))
  const opa = await startOpa(folder, (line) => console.error(`OPA: ${line}`))
  return opa === undefined ? subjects : [...subjects, stack.use(opa)]
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const questions = makeQuestions()
  const subjects = await startAll(stack, questions.root)
  await demandDecisions(subjects, questions)
  const rows: Record<string, string | number>[] = []
  let told: Results = new Map()
  for (const shape of shapes) {
    const results = await measure(subjects, questions.body, shape)
    rows.push(rowOf(shape.join('x'), results))
    if (shape === judged) told = results
  }
  const { whole = nothing, 'grpc-js': peer = nothing } = Object.fromEntries(told)
  return {
    ...{ rows, figure: rounded(whole.cpu), ok: isMet(told), goal: goals.whole },
    unit: 'µs of CPU for a decision at 2x32',
    peer: { name: 'grpc-js', figure: rounded(peer.cpu) },
  }
}

export const authzBench: Bench = { name: 'authz', run }

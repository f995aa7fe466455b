// bench envoy: what authorization costs an Envoy that the agent drives: by its own RBAC, and by asking the agent,
// beside the same listener without any, for 10, 1000 and 10 000 policies.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { JsonValue } from '@bufbuild/protobuf'
import { envoyBootstrap } from '../agent/proxies/envoy/bootstrap.ts'
import { planOf } from '../agent/proxies/envoy/plan.ts'
import { snapshotOf } from '../agent/proxies/envoy/snapshot.ts'
import { noPolicies } from '../policies/compile.ts'
import { proxySpec } from '../proxy-spec/spec.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { keyPairToPem } from '../spiffe/pem.ts'
import {
  clientId,
  type DrivenEnvoy,
  envoyId,
  startDrivenEnvoy,
} from '../test/support/driven-envoy.ts'
import { startEnvoy } from '../test/support/envoy.ts'
import { testFolder } from '../test/support/folder.ts'
import { policyText } from '../test/support/policy-text.ts'
import { freePort } from '../test/support/ports.ts'
import type { Closed, ClosedResult } from './load/closed.ts'
import { type Bench, type BenchResult, judge, median, rounded } from './measure.ts'
import { envoyProgram, untilAllowed } from './servers/envoy.ts'
import { usageOf } from './servers/usage.ts'

const sizes = [10, 1000, 10_000] as const
const perFile = 2000
const rounds = 9
const load = { connections: 8, time: 1500 } as const

const principal = (id: string) => id.slice('spiffe://'.length)

/** That many policies, of which the last lets the client in. */
function policies(count: number): string[] {
  const one = (name: string, who: string, path: string) =>
    policyText(
      `[{ from: [{ source: { principals: [${who}] } }], to: [{ operation: { paths: [${path}] } }] }]`,
      { name },
    )
  const others = Array.from({ length: count - 1 }, (_, i) =>
    one(`p${i}`, `example.org/ns/shop/sa/s${i}`, `/p${i}`),
  )
  const all = [...others, one('client', principal(clientId), '/ok')]
  // a file is 1 MiB at most
  const files = Array.from({ length: Math.ceil(count / perFile) }, (_, i) =>
    all.slice(i * perFile, (i + 1) * perFile),
  )
  return files.map((its) => its.join('---\n'))
}

interface JsonRecord {
  [name: string]: JsonValue
}

const isRecord = (value: JsonValue): value is JsonRecord =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The same configuration without what authorizes. */
function unauthorized(value: JsonValue): JsonValue {
  if (Array.isArray(value))
    return value
      .filter((it) => !(isRecord(it) && String(it.name).startsWith('castellan_')))
      .map(unauthorized)
  if (!isRecord(value)) return value
  const kept = Object.entries(value).filter(([name]) => name !== 'typed_per_filter_config')
  return Object.fromEntries(kept.map(([name, it]) => [name, unauthorized(it)]))
}

/** Takes the routes from where they are, in place of the stream. */
function withRoutes(value: JsonValue, routes: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map((it) => withRoutes(it, routes))
  if (!isRecord(value)) return value
  const { rds, ...rest } = value
  const inner = Object.fromEntries(
    Object.entries(rest).map(([name, it]) => [name, withRoutes(it, routes)]),
  )
  return rds === undefined ? inner : { ...inner, route_config: routes }
}

const untyped = (value: JsonValue): JsonValue => {
  if (!isRecord(value)) return value
  const { '@type': _, ...rest } = value
  return rest
}

/** An Envoy with the driven one's listener, on a port of its own and without authorization. */
async function startPlain(it: DrivenEnvoy, program: string, folder: string) {
  const port = await freePort()
  const listener = {
    ...{ name: 'web', listen: `127.0.0.1:${port}`, protocol: 'http' },
    forwardTo: `127.0.0.1:${it.ports.backend}`,
  }
  const plan = planOf(
    snapshotOf({
      spec: proxySpec.parse({ identity: envoyId, inbound: [listener] }),
      ...{
        identity: parseSpiffeId(envoyId),
        labels: {},
        policies: noPolicies,
        revoked: [],
        unseen: [],
      },
      trust: { own: 'spiffe://example.org', all: 'ALL' },
      ...{ isFederated: false, endpoints: new Map(), decisions: undefined, asksAlways: false },
      cuts: { inbound: '', outbound: {} },
      life: 3_600_000,
    }),
  )
  const [routes = null] = plan.routes.map(unauthorized).map(untyped)
  const bootstrap = envoyBootstrap({
    ...{ socket: it.node.agent.socket, admin: join(folder, 'plain.sock'), nodeId: 'plain' },
    delta: true,
  })
  const envoy = await startEnvoy(program, {
    ...{ name: 'plain', folder },
    bootstrap: {
      ...bootstrap,
      dynamic_resources: { ads_config: bootstrap.dynamic_resources.ads_config },
      static_resources: {
        clusters: [...bootstrap.static_resources.clusters, ...plan.clusters.map(untyped)],
        listeners: plan.listeners.map((one) => untyped(withRoutes(unauthorized(one), routes))),
      },
    },
  })
  return { port, envoy }
}

interface Load extends AsyncDisposable {
  readonly backend: number
  run(closed: Closed): Promise<ClosedResult>
}

function isResult(value: unknown): value is ClosedResult {
  return typeof value === 'object' && value !== null && 'requests' in value
}
function isPort(value: unknown): value is { readonly port: number } {
  return typeof value === 'object' && value !== null && 'port' in value
}

async function startLoad(): Promise<Load> {
  const child: ChildProcess = fork(join(import.meta.dirname, 'load/closed.ts'))
  const ended = once(child, 'exit')
  const [first] = await once(child, 'message')
  if (!isPort(first)) throw new TypeError('no port')
  return {
    backend: first.port,
    async run(closed) {
      const answered = once(child, 'message')
      child.send(closed)
      const [message] = await answered
      if (!isResult(message)) throw new TypeError('no result')
      return message
    },
    async [Symbol.asyncDispose]() {
      child.kill()
      await ended
    },
  }
}

interface Subject {
  readonly name: string
  readonly port: number
  readonly pid: number
}

interface Measured {
  /** microseconds of Envoy's CPU for a request */
  readonly cpu: number
  readonly p50: number
  readonly p99: number
}

async function measureOnce(subject: Subject, it: DrivenEnvoy, by: Load): Promise<Measured> {
  const svid = it.svid()
  const usage = usageOf(subject.pid)
  const before = usage.cpu()
  const result = await by.run({
    ...{ ...load, port: subject.port, ca: it.roots() },
    ...keyPairToPem(svid),
  })
  if (result.failed > 0)
    throw new IdentityError('ERR_DENIED', `${subject.name}: ${result.failed} requests were denied`)
  return { cpu: (usage.cpu() - before) / result.requests, p50: result.p50, p99: result.p99 }
}

interface Stage {
  readonly native: DrivenEnvoy
  readonly asked: DrivenEnvoy
  readonly plain: { readonly port: number; readonly envoy: { readonly pid: number } }
  readonly load: Load
}

/** Medians of each subject, in turns. */
async function measure({ native, asked, plain, load: by }: Stage): Promise<Measured[]> {
  const subjects: (Subject & { readonly it: DrivenEnvoy })[] = [
    { name: 'none', port: plain.port, pid: plain.envoy.pid, it: native },
    { name: 'native RBAC', port: native.ports.inbound, pid: native.envoy.pid, it: native },
    { name: 'ext_authz', port: asked.ports.inbound, pid: asked.envoy.pid, it: asked },
  ]
  const all = subjects.map((subject) => ({ subject, values: [] as Measured[] }))
  for (let round = 0; round <= rounds; round++) {
    for (const { subject, values } of all) {
      const value = await measureOnce(subject, subject.it, by)
      if (round > 0) values.push(value)
    }
  }
  return all.map(({ values }) => ({
    cpu: median(values.map(({ cpu }) => cpu)),
    p50: median(values.map(({ p50 }) => p50)),
    p99: median(values.map(({ p99 }) => p99)),
  }))
}

async function startStage(stack: AsyncDisposableStack): Promise<Stage> {
  const envoy = await envoyProgram('envoy')
  const folder = stack.use(testFolder()).path
  const by = stack.use(await startLoad())
  const options = { envoy, delta: true, backend: by.backend }
  const native = stack.use(await startDrivenEnvoy(options))
  const agent = { decisions: { socket: join(folder, 'authz.sock') } }
  const asked = stack.use(await startDrivenEnvoy({ ...options, agent, decides: 'agent' }))
  const plain = await startPlain(native, envoy, folder)
  stack.use(plain.envoy)
  return { native, asked, plain, load: by }
}

async function run(): Promise<BenchResult> {
  await using stack = new AsyncDisposableStack()
  const stage = await startStage(stack)
  const rows: Record<string, string | number>[] = []
  let [ratio, bare] = [Number.NaN, Number.NaN]
  for (const size of sizes) {
    for (const it of [stage.native, stage.asked]) {
      await it.apply(...policies(size))
      await untilAllowed(() => ({ port: it.ports.inbound, svid: it.svid(), roots: it.roots() }))
    }
    const [none, native, asked] = await measure(stage)
    if (none === undefined || native === undefined || asked === undefined) continue
    for (const [name, it] of Object.entries({ none, 'native RBAC': native, ext_authz: asked })) {
      rows.push({
        ...{ policies: size, authorization: name, 'Envoy CPU us': rounded(it.cpu, 1) },
        ...{
          'of none': rounded(it.cpu / none.cpu),
          'p50 ms': rounded(it.p50),
          'p99 ms': rounded(it.p99),
        },
        'added p50 ms': rounded(it.p50 - none.p50),
      })
    }
    ratio = native.cpu / none.cpu
    bare = none.cpu
  }
  const goals = [
    { what: 'native, 10 000 policies', measured: ratio, unit: 'x none', limit: { most: 1.1 } },
  ]
  const { ok } = judge(goals)
  const peer = { name: 'without authorization us', figure: rounded(bare, 1) }
  return { rows, figure: rounded(ratio), unit: 'x the CPU of none', goal: 1.1, peer, ok }
}

export const envoyBench: Bench = { name: 'envoy', run }

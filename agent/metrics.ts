// What operators watch of an agent. But for what happens between two looks, everything is looked up when a
// scraper asks.
import { Counter, collectDefaultMetrics, Gauge, Histogram, type Registry } from 'prom-client'
import { type Flow, Outcome } from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { GrpcServer } from '../runtime/grpc/server.ts'
import { showSpans } from '../runtime/tracing/metrics.ts'
import type { Core } from './core.ts'
import type { Count } from './counts.ts'
import { showFiles } from './files/metrics.ts'
import type { FileWriter } from './files/writer.ts'
import { refusalsOf } from './proxies/ledger.ts'
import { policiesInUse } from './sidecar/in-use.ts'

/** What an agent shows beside its core. */
export interface ShownParts {
  readonly files: Pick<FileWriter, 'status'>
  readonly servers: readonly Pick<GrpcServer, 'connections' | 'streams' | 'unread'>[]
}

const flowLabels = ['source', 'destination', 'outcome', 'policy', 'rule'] as const

function outcomeText(outcome: Outcome): string {
  return (Outcome[outcome] ?? 'unspecified').toLowerCase()
}

const labelsOf = ({ source, destination, outcome, policy, rule }: Flow) => ({
  ...{ source, destination, outcome: outcomeText(outcome), policy },
  rule: policy === '' ? '' : String(rule),
})

/** At most ten thousand series: the ledger counts what is more as one of "(others)". */
function showFlows(registry: Registry, { ledger }: Core): void {
  new Counter({
    name: 'castellan_decisions_total',
    help: 'decisions of the sidecars and proxies of this node, by caller, callee, outcome and what determined it',
    labelNames: flowLabels,
    registers: [registry],
    collect() {
      this.reset()
      for (const flow of ledger.flows()) this.inc(labelsOf(flow), Number(flow.count))
    },
  })
}

function showCount<N extends string>(
  registry: Registry,
  { name, help }: { readonly name: string; readonly help: string },
  count: Count<N>,
): void {
  new Counter({
    ...{ name: `castellan_agent_${name}`, help, registers: [registry] },
    labelNames: Object.keys(count.all()[0]?.labels ?? {}),
    collect() {
      this.reset()
      for (const { labels, count: value } of count.all()) this.inc(labels, value)
    },
  })
}

/** Disposing ends the count of what nobody else keeps. */
function showHappenings(registry: Registry, { cache, counts, session }: Core): Disposable {
  const registers = [registry]
  const listening = new DisposableStack()
  const changes = new Counter({
    name: 'castellan_agent_svid_changes_total',
    help: 'SVIDs of workloads that were received, renewed or dropped',
    registers,
  })
  listening.use(cache.onChange((entryIds) => changes.inc(entryIds.size)))
  const losses = new Counter({
    name: 'castellan_agent_disconnects_total',
    help: 'times that the connection to the authority was lost, or could not be made',
    registers,
  })
  const tell = () => void (session.status().trouble !== undefined && losses.inc())
  listening.use(session.onChange(tell))
  const decided = new Histogram({
    name: 'castellan_agent_decision_seconds',
    help: 'time that decisions took at the decision socket, from a question that was read to its answer',
    buckets: [0.000025, 0.0001, 0.00025, 0.001, 0.005, 0.025, 0.1],
    registers,
  })
  listening.use(counts.decided.subscribe((ms) => decided.observe(ms / 1000)))
  return listening
}

type Read = () => number
type AddGauge = (name: string, help: string, read: Read) => void

function showIdentity(gauge: AddGauge, { cache, session, disk, knowledge, tokens }: Core): void {
  const earliest = () => Math.min(...[...cache.svids.values()].map(({ notAfter }) => notAfter))
  gauge('connected', '1 when it hears its authority', () =>
    Number(session.status().trouble === undefined),
  )
  gauge(
    'own_svid_expires_seconds',
    'end of its own SVID, seconds since the epoch; 0 without',
    () => (session.status().svid?.notAfter ?? 0) / 1000,
  )
  gauge('entries', 'registration entries of this node', () => knowledge.entries.size)
  gauge('svids', 'X.509-SVIDs of workloads', () => cache.svids.size)
  gauge('svid_expires_seconds', 'the first end of them, seconds since the epoch; 0 without', () =>
    cache.svids.size === 0 ? 0 : earliest() / 1000,
  )
  gauge(
    'svids_due',
    'workload identities whose X.509-SVID is to be made or renewed now',
    () => cache.due().length,
  )
  gauge('tokens', 'JWT- and WIT-SVIDs of workloads that are kept', () => tokens.kept().length)
  gauge('disk_healthy', '1 when what it holds is on its disk', () =>
    Number(disk.trouble() === undefined && session.status().unsaved === undefined),
  )
}

function showEnforcement(gauge: AddGauge, { knowledge, ledger, proxies }: Core): void {
  const inUse = policiesInUse(knowledge, { ledger, proxies })
  const version = () => knowledge.policies()?.version ?? 0n
  const versions = () => inUse.points().map((point) => Number(point.version ?? 0n))
  gauge('policy_version', 'version of the policies it holds', () => Number(version()))
  gauge(
    'policy_version_in_force',
    'the oldest version that anybody on this node decides with',
    () => Math.min(...versions()),
  )
  gauge(
    'points_refusing',
    'those on this node that refused the newest policies or configuration and stay with the former',
    () => inUse.points().filter(({ refusal = '' }) => refusal !== '').length,
  )
  gauge('proxies', 'proxies that follow it by ADS', () => proxies.proxies.size)
  gauge(
    'proxies_refusing',
    'those of them that refused the newest configuration of some kind',
    () => [...proxies.proxies].filter((it) => refusalsOf(it).length > 0).length,
  )
  gauge(
    'proxies_remarked',
    'those of them of which agent status has something to say',
    () => [...proxies.proxies].filter(({ remarks }) => remarks.length > 0).length,
  )
  gauge(
    'listeners_closed',
    'listeners of proxies where nobody gets in: agent status says why',
    () => [...proxies.proxies].reduce((sum, { closed }) => sum + closed, 0),
  )
  gauge('sidecars', 'sidecars that follow its policies', () => ledger.sidecars.size)
  gauge(
    'sidecars_behind',
    'those of them that decide with an older version',
    () => [...ledger.sidecars].filter(({ policies }) => policies < version()).length,
  )
}

function showStreams(registry: Registry, gauge: AddGauge, { servers }: ShownParts): void {
  gauge('connections', 'open connections to its sockets', () =>
    servers.reduce((sum, it) => sum + it.connections, 0),
  )
  gauge('late_streams', 'streams whose client has not read for half a minute', () =>
    servers.reduce((sum, it) => sum + it.unread().length, 0),
  )
  new Gauge({
    name: 'castellan_agent_streams',
    help: 'open streams by method: of the Workload API, SDS, ADS, sidecars, delegates',
    labelNames: ['method'],
    registers: [registry],
    collect() {
      this.reset()
      for (const server of servers)
        for (const [method, count] of server.streams()) this.inc({ method }, count)
    },
  })
}

/** Everything that `core` and `parts` say, in `registry`; disposing ends what is counted here. */
export function showAgent(registry: Registry, core: Core, parts: ShownParts): Disposable {
  // in ms: the default, 10, would wake an idle agent a hundred times a second
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  const gauge: AddGauge = (name, help, read) => {
    new Gauge({
      ...{ name: `castellan_agent_${name}`, help, registers: [registry] },
      collect() {
        this.set(read())
      },
    })
  }
  showIdentity(gauge, core)
  showEnforcement(gauge, core)
  showStreams(registry, gauge, parts)
  showFlows(registry, core)
  showFiles(registry, parts.files)
  showSpans(registry, 'castellan_agent', core.tracer)
  const { requests, pushes } = core.counts
  showCount(
    registry,
    {
      name: 'svid_requests_total',
      help: 'SVIDs that the authority was asked for, first ones and renewals, by kind and what became of it',
    },
    requests,
  )
  showCount(
    registry,
    {
      name: 'xds_pushes_total',
      help: 'resources that proxies were told, by kind: sent, taken, refused',
    },
    pushes,
  )
  return showHappenings(registry, core)
}

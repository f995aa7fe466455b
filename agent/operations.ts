// /livez, /readyz and /metrics of an agent.
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { type Flow, Outcome } from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import type { Address } from '../runtime/config.ts'
import { type OperationsServer, startOperations } from '../runtime/http.ts'
import type { Core } from './core.ts'
import { refusalsOf } from './proxies/ledger.ts'

const flowLabels = ['source', 'destination', 'outcome', 'policy', 'rule'] as const

export function outcomeText(outcome: Outcome): string {
  return (Outcome[outcome] ?? 'unspecified').toLowerCase()
}

const labelsOf = ({ source, destination, outcome, policy, rule }: Flow) => ({
  ...{ source, destination, outcome: outcomeText(outcome), policy },
  rule: policy === '' ? '' : String(rule),
})

/** Registered with `registry`; read when it is asked. */
function showFlows(registry: Registry, { ledger }: Core): void {
  new Counter({
    name: 'castellan_decisions_total',
    help: 'decisions at this node, by caller, callee, outcome and what determined it',
    labelNames: flowLabels,
    registers: [registry],
    collect() {
      this.reset()
      for (const flow of ledger.flows()) this.inc(labelsOf(flow), Number(flow.count))
    },
  })
}

/** Disposing ends the count. */
function showSvids(registry: Registry, { cache }: Core): Disposable {
  const changes = new Counter({
    name: 'castellan_agent_svid_changes_total',
    help: 'SVIDs of workloads that were received, renewed or dropped',
    registers: [registry],
  })
  return cache.onChange((entryIds) => changes.inc(entryIds.size))
}

function showState(registry: Registry, core: Core): void {
  const { knowledge, cache, ledger, proxies, session } = core
  function gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      ...{ name: `castellan_agent_${name}`, help, registers: [registry] },
      collect() {
        this.set(read())
      },
    })
  }
  const version = () => knowledge.policies()?.version ?? 0n
  const earliest = () => Math.min(...[...cache.svids.values()].map(({ notAfter }) => notAfter))
  gauge('connected', '1 when it hears its authority', () =>
    Number(session.status().trouble === undefined),
  )
  gauge(
    'own_svid_expires_seconds',
    'end of its own SVID, seconds since the epoch; 0 without',
    () => (session.status().svid?.notAfter ?? 0) / 1000,
  )
  gauge('svids', 'X.509-SVIDs of workloads', () => cache.svids.size)
  gauge('svid_expires_seconds', 'the first end of them, seconds since the epoch; 0 without', () =>
    cache.svids.size === 0 ? 0 : earliest() / 1000,
  )
  gauge('entries', 'registration entries of this node', () => knowledge.entries.size)
  gauge('policy_version', 'version of the policies it holds', () => Number(version()))
  gauge('proxies', 'proxies that follow it by ADS', () => proxies.proxies.size)
  gauge(
    'proxies_refusing',
    'those of them that refused the newest configuration of some kind',
    () => [...proxies.proxies].filter((it) => refusalsOf(it).length > 0).length,
  )
  gauge('sidecars', 'sidecars that follow its policies', () => ledger.sidecars.size)
  gauge(
    'sidecars_behind',
    'those of them that decide with an older version',
    () => [...ledger.sidecars].filter(({ policies }) => policies < version()).length,
  )
}

/** Throws with the address when it cannot be listened on. */
export async function startAgentOperations(core: Core, listen: Address): Promise<OperationsServer> {
  const registry = new Registry()
  // in ms: the default, 10, would wake an idle agent a hundred times a second
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  showState(registry, core)
  showFlows(registry, core)
  await using starting = new AsyncDisposableStack()
  starting.use(showSvids(registry, core))
  const { port } = starting.use(
    await startOperations({
      listen,
      metrics: registry,
      notReady: async () =>
        core.knowledge.isComplete() ? undefined : 'it has not heard from its authority yet',
    }),
  )
  core.log.info({ host: listen.host, port }, 'metrics')
  const running = starting.move()
  return { port, [Symbol.asyncDispose]: () => running.disposeAsync() }
}

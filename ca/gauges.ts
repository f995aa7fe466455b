// How the authority stands, looked up when a scraper asks: keys and their rotation, agents, policies, streams.
import { Gauge, type Registry as Metrics } from 'prom-client'
import type { GrpcServer } from '../runtime/grpc/server.ts'
import { showSpans } from '../runtime/tracing/metrics.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { phaseOf, phases, type Slot, type Slots } from './authorities/slot.ts'
import type { Authority } from './authority.ts'
import type { KnownPoint } from './enforcement.ts'

export interface Shown {
  readonly authority: Pick<
    Authority,
    'acknowledgements' | 'authorities' | 'clock' | 'enforcement' | 'registry' | 'store'
  >
  /** why the authority is not ready; undefined when it is */
  readonly notReady: () => string | undefined
  readonly tracer: Pick<Tracer, 'counts'>
  readonly servers: readonly Pick<GrpcServer, 'connections' | 'streams'>[]
}

/** Values by one label, or one value. */
type Reading = number | Iterable<readonly [label: string, value: number]>

interface Wanted {
  readonly name: string
  readonly help: string
  readonly label?: string
  readonly read: () => Reading | Promise<Reading>
}

/** What cannot be read now (a store that is away) is no number; the other metrics are shown all the same. */
function show(metrics: Metrics, { name, help, label, read }: Wanted): void {
  new Gauge({
    ...{ name: `castellan_ca_${name}`, help, registers: [metrics] },
    labelNames: label === undefined ? [] : [label],
    async collect() {
      try {
        const reading = await read()
        if (typeof reading === 'number' || label === undefined) return this.set(Number(reading))
        this.reset()
        for (const [value, count] of reading) this.set({ [label]: value }, count)
      } catch {
        if (label === undefined) this.set(Number.NaN)
        else this.reset()
      }
    },
  })
}

const kindsOf = ({ authorities }: Shown['authority']): readonly [string, Slots<Slot>][] =>
  Object.entries({ x509: authorities, jwt: authorities.jwt, wit: authorities.wit })

/** What this replica signs with. */
const activeOf = (slots: Slots<Slot>) => slots.own().find(({ state }) => state === 'active')

/** How much of its life has gone, from 0 to 1. */
function ageOf(slots: Slots<Slot>, now: number): number {
  const active = activeOf(slots)
  if (active === undefined) return Number.NaN
  return (now - active.notBefore) / (active.notAfter - active.notBefore)
}

function showKeys(metrics: Metrics, authority: Shown['authority']): void {
  const { acknowledgements, authorities, clock } = authority
  const gauge = new Gauge({
    name: 'castellan_ca_authorities',
    help: 'published keys that sign, by kind and place in the rotation',
    labelNames: ['kind', 'phase'],
    registers: [metrics],
    collect() {
      for (const [kind, slots] of kindsOf(authority))
        for (const phase of phases)
          gauge.set({ kind, phase }, slots.all().filter((it) => phaseOf(it) === phase).length)
    },
  })
  show(metrics, {
    name: 'authority_expires_seconds',
    help: 'end of the key that signs, seconds since the epoch; 0 without one',
    label: 'kind',
    read: () =>
      kindsOf(authority).map(([kind, slots]) => [kind, (activeOf(slots)?.notAfter ?? 0) / 1000]),
  })
  show(metrics, {
    name: 'authority_age_ratio',
    help: 'part of its life that the key that signs has behind it; the next one is prepared at 1/2 and signs from 5/6',
    label: 'kind',
    read: () => kindsOf(authority).map(([kind, slots]) => [kind, ageOf(slots, clock.now())]),
  })
  show(metrics, {
    name: 'rotation_laggards',
    help: 'connected agents that have not put to use what is published; a rotation waits for them',
    read: async () => (await acknowledgements.laggards(authorities.sequence)).length,
  })
}

function standingOf({ version, refusal }: KnownPoint, wanted: number): string {
  if (version >= wanted) return 'in_force'
  return refusal === '' ? 'behind' : 'refusing'
}

function showPolicies(metrics: Metrics, { enforcement, registry }: Shown['authority']): void {
  show(metrics, {
    name: 'policy_version',
    help: 'version of the policies that agents are told',
    read: () => registry.policies().version,
  })
  show(metrics, {
    name: 'policy_points',
    help: 'agents, sidecars and proxies that decide, by how they stand to that version',
    label: 'standing',
    async read() {
      const { version } = registry.policies()
      const counts = new Map([
        ['in_force', 0],
        ['behind', 0],
        ['refusing', 0],
      ])
      for (const point of await enforcement.points()) {
        const standing = standingOf(point, version)
        counts.set(standing, (counts.get(standing) ?? 0) + 1)
      }
      return counts
    },
  })
}

function streamsOf(servers: Shown['servers']): Map<string, number> {
  const sums = new Map<string, number>()
  for (const server of servers)
    for (const [method, count] of server.streams())
      sums.set(method, (sums.get(method) ?? 0) + count)
  return sums
}

/** The authority is open: what it knows is shown from now on. */
export function showAuthority(metrics: Metrics, shown: Shown): void {
  const { authority, notReady, servers } = shown
  const { acknowledgements, registry, store } = authority
  const gauge = (name: string, help: string, read: Wanted['read'], label?: string) =>
    show(metrics, { name, help, read, ...(label === undefined ? {} : { label }) })
  gauge('ready', '1 when it can sign and store', () => Number(notReady() === undefined))
  gauge('store_healthy', '1 when the last write of the store got to the disk', () =>
    Number(store.trouble() === undefined),
  )
  gauge('entries', 'registration entries', () => registry.entries.size)
  gauge('agents', 'attested agents', () => registry.agents.size)
  gauge(
    'agents_connected',
    'those that were heard a moment ago, by any replica',
    async () => (await acknowledgements.connected()).length,
  )
  gauge('deny_rules', 'rules of the deny-list', () => registry.denyRules().length)
  gauge('connections', 'open gRPC connections', () =>
    servers.reduce((sum, it) => sum + it.connections, 0),
  )
  gauge('streams', 'open gRPC streams by method', () => streamsOf(servers), 'method')
  showSpans(metrics, 'castellan_ca', shown.tracer)
  showKeys(metrics, authority)
  showPolicies(metrics, authority)
}

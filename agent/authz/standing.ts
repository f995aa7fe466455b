// For whom a process asks: the identities that its entries give it, never one that it names without having it.
import type { Inbound } from '../../decisions/rehearsal.ts'
import { type Destination, destinationOf } from '../../policies/attributes/request.ts'
import type { Backend } from '../../policies/language/mesh.ts'
import type { Labels } from '../../policies/language/policy.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'
import type { AgentEntry } from '../entries.ts'
import { labelsOf } from '../sidecar/state.ts'

/** One identity of a process, as decisions see it. */
export interface Served {
  readonly id: SpiffeId
  readonly labels: Labels
  /** trust domains whose members it may believe, beside its own */
  readonly federatesWith: readonly TrustDomain[]
  /** The same value again for the same port: what guards it is found by it. */
  at(port: number | undefined, backend: Backend | undefined): Destination
  /** ports that it was asked about, and how the workload there reads paths */
  inbound(): readonly Inbound[]
}

export interface Standing {
  /** the default identity first; empty for who has none */
  readonly served: readonly Served[]
  /** That identity when it is its own, the default one for an empty name. */
  of(principal: string): Served | undefined
}

// a workload listens at fewer; they are what a proxy says
const mostPorts = 256

function servedAs(id: SpiffeId, entries: readonly AgentEntry[], labels: Labels): Served {
  type Place = Inbound & { readonly destination: Destination }
  const places = new Map<Backend | undefined, Map<number | undefined, Place>>()
  const placesBehind = (backend: Backend | undefined) => {
    const known = places.get(backend) ?? new Map<number | undefined, Place>()
    if (known.size === 0) places.set(backend, known)
    return known
  }
  const federatesWith = [...new Set(entries.flatMap((it) => it.federatesWith))].sort()
  return {
    ...{ id, labels, federatesWith },
    at(port, backend) {
      const ports = placesBehind(backend)
      const known = ports.get(port)
      if (known !== undefined) return known.destination
      const destination = destinationOf(id, { labels, ...(port === undefined ? {} : { port }) })
      if (ports.size >= mostPorts) ports.clear()
      ports.set(port, { port: port ?? 0, backend, destination })
      return destination
    },
    inbound: () =>
      [...places.values()].flatMap((ports) =>
        [...ports.values()].map(({ port, backend }) => ({ port, backend })),
      ),
  }
}

function standingOf(entries: readonly AgentEntry[]): Standing {
  const labels = new Map(labelsOf(entries).map((it) => [it.spiffeId, it.labels]))
  const byId = Map.groupBy(entries, ({ spiffeId }) => spiffeId)
  const served = [...byId].map(([id, its]) => servedAs(id, its, labels.get(id) ?? {}))
  const byName = new Map<string, Served>(served.map((it) => [it.id, it]))
  return {
    served,
    of: (principal) => (principal === '' ? served[0] : byName.get(principal)),
  }
}

export interface Standings {
  /** The same value again for the same entries. */
  of(entries: readonly AgentEntry[]): Standing
  /** those that were asked for since entries changed */
  readonly all: Iterable<Standing>
}

const mostStandings = 1024

const keyOf = (entries: readonly AgentEntry[]) =>
  JSON.stringify(
    entries.map(({ id, revision, labels }) => [id, String(revision), Object.entries(labels)]),
  )

export function createStandings(): Standings {
  const known = new Map<string, Standing>()
  return {
    of(entries) {
      const key = keyOf(entries)
      const kept = known.get(key)
      if (kept !== undefined) return kept
      const made = standingOf(entries)
      // the one that was made first is the one that entries have left behind, most likely
      const [oldest] = known.keys()
      if (known.size >= mostStandings && oldest !== undefined) known.delete(oldest)
      known.set(key, made)
      return made
    },
    get all() {
      return known.values()
    },
  }
}

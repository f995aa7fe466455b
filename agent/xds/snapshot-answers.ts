// What one proxy is told of a snapshot, in the order in which it breaks nothing (proxies.md §2.4): what is used is
// there before what uses it, and goes after it.
import type { Resources, Snapshot } from '../proxies/envoy/snapshot.ts'
import type { Kind } from '../proxies/ledger.ts'
import type { Protocol } from './converse.ts'
import type { Offer, Resource, Wanted } from './resource.ts'

/** Those that are named, or all; what is not there (yet) is waited for, it is never said to be gone. */
function offerOf(resources: Resources, { names, everything }: Wanted): Offer {
  const pending = new Set([...names].filter((name) => !resources.has(name)))
  const wanted = everything ? resources : named(resources, names)
  return {
    resources: wanted,
    pending: everything ? new Set() : pending,
    absent: new Map(),
    isWhole: true,
  }
}

function named(resources: Resources, names: ReadonlySet<string>): Resources {
  const found = new Map<string, Resource>()
  for (const name of names) {
    const resource = resources.get(name)
    if (resource !== undefined) found.set(name, resource)
  }
  return found
}

/** What one stream has been told, type by type. */
export interface Told<Req, Res> {
  readonly protocols: ReadonlyMap<Kind, Protocol<Req, Res>>
  /** clusters that the proxy has, those that its listeners may still use among them */
  clusters: Map<string, Resource>
}

/** What has gone from the snapshot stays until listeners and routes without it were taken. */
function lingering<Req, Res>(told: Told<Req, Res>, { clusters }: Snapshot): Resources {
  const all = new Map(clusters)
  for (const [name, cluster] of told.clusters) if (!all.has(name)) all.set(name, cluster)
  return all
}

const isChanged = (told: Resources, now: Resource) => {
  const before = told.get(now.name)
  return before !== undefined && before.version !== now.version
}

export function answersOf<Req, Res>(
  told: Told<Req, Res>,
  snapshot: Snapshot,
): { readonly kind: Kind; readonly response: Res }[] {
  const answers: { kind: Kind; response: Res }[] = []
  function tell(kind: Kind, resources: Resources): boolean {
    const protocol = told.protocols.get(kind)
    const wanted = protocol?.wanted()
    if (protocol === undefined || wanted === undefined) return false
    const response = protocol.tell(offerOf(resources, wanted))
    if (response !== undefined) answers.push({ kind, response })
    return response !== undefined
  }
  function tellClusters(clusters: Resources): void {
    if (!tell('clusters', clusters)) return
    // a changed cluster warms again, and waits for its endpoints, though they are what they were
    for (const it of clusters.values())
      if (isChanged(told.clusters, it)) told.protocols.get('endpoints')?.forget(it.name)
    told.clusters = new Map(clusters)
  }
  tellClusters(lingering(told, snapshot))
  tell('endpoints', snapshot.endpoints)
  const users = [tell('listeners', snapshot.listeners), tell('routes', snapshot.routes)]
  const areSettled = (['listeners', 'routes'] as const).every(
    (kind) => told.protocols.get(kind)?.isSettled() !== false,
  )
  if (!users.includes(true) && areSettled) tellClusters(snapshot.clusters)
  return answers
}

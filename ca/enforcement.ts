// Which policies are decided with, and where: what agents say of their nodes. Those that this replica hears are
// in memory, all of them in the store, where the other replicas find them.
import { createTopic } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Acknowledgements } from './acknowledgements.ts'
import { createBatch } from './store/batch.ts'
import type { EnforcementPoint, EnforcementRow } from './store/said.ts'
import type { Store } from './store/store.ts'

/** A point on an agent's node. */
export interface KnownPoint extends EnforcementPoint {
  readonly agentId: SpiffeId
}

export interface Enforcement {
  /** An agent follows this replica; it has said nothing yet. */
  opened(agentId: SpiffeId): void
  said(agentId: SpiffeId, points: readonly EnforcementPoint[]): void
  /** Those of agents that were heard a moment ago, by any replica. */
  points(): Promise<readonly KnownPoint[]>
  /** Called after what this replica hears. */
  onChange(listener: () => void): Disposable
  /** Forgets who is away. */
  keep(): Promise<void>
}

export interface EnforcementOptions {
  readonly store: Pick<Store, 'enforcement' | 'replica' | 'isShared'>
  readonly acknowledgements: Pick<Acknowledgements, 'connected'>
  readonly log: Log
}

/** Who has not said anything decides with nothing that is known. */
const silent: EnforcementPoint = { spiffeId: '', pid: 0, version: 0, refusal: '' }

export async function openEnforcement(options: EnforcementOptions): Promise<Enforcement> {
  const { store, acknowledgements, log } = options
  const { replica } = store
  const topic = createTopic<void>()
  const heard = new Map<SpiffeId, readonly EnforcementPoint[]>()
  const write = createBatch<EnforcementRow>((rows) => store.enforcement.put(rows))
  for (const row of await store.enforcement.list())
    if (row.replica === replica) heard.set(row.agentId, row.points)

  /** What is nearest to the agent knows best: itself heard it last, or another replica did. */
  async function known(): Promise<ReadonlyMap<SpiffeId, readonly EnforcementPoint[]>> {
    if (!store.isShared) return heard
    const rows = await store.enforcement.list()
    const theirs = rows.filter((row) => row.replica !== replica)
    return new Map([...heard, ...theirs.map((row) => [row.agentId, row.points] as const)])
  }

  return {
    opened(agentId) {
      if (!heard.has(agentId)) heard.set(agentId, [silent])
      topic.publish()
    },
    said(agentId, points) {
      heard.set(agentId, points)
      topic.publish()
      // the other replicas hear of it with the next one
      write({ agentId, replica, points }).catch((error: unknown) =>
        log.error({ err: error, agentId }, 'the store does not know which policies are in use'),
      )
    },
    async points() {
      const all = await known()
      return (await acknowledgements.connected()).flatMap((agentId) =>
        (all.get(agentId) ?? []).map((point) => ({ agentId, ...point })),
      )
    },
    onChange: (listener) => topic.subscribe(listener),
    async keep() {
      const here = new Set(await acknowledgements.connected())
      const away = [...heard.keys()].filter((id) => !here.has(id))
      if (away.length === 0) return
      await store.enforcement.remove(away)
      for (const id of away) heard.delete(id)
      topic.publish()
    },
  }
}

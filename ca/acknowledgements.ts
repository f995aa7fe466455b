// Which agents have put to use what was published: what the rotation of authorities waits for. Those that
// this replica hears are in memory and, as far as it matters, in the store, where the others find them.
import type { Clock } from '../runtime/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { createBatch } from './store/batch.ts'
import type { AcknowledgementRow } from './store/model.ts'
import type { Store } from './store/store.ts'

export interface Laggard {
  readonly agentId: SpiffeId
  /** the cursor that it has acknowledged, 0 for none */
  readonly acknowledged: number
  /** when it was heard last, ms since the epoch */
  readonly heardAt: number
}

export interface Acknowledgements {
  /** A castellan agent says that it has put everything up to `cursor` to use. */
  acknowledge(agentId: SpiffeId, cursor: number): void
  /** A stock agent was answered with the bundle of `sequence`; the second time it counts. */
  answered(agentId: SpiffeId, sequence: number): void
  /** Agents that were heard a moment ago, by any replica. */
  connected(): Promise<readonly SpiffeId[]>
  /** Connected agents that do not have what was published at `sequence`. */
  laggards(sequence: number): Promise<readonly Laggard[]>
  /** Writes what is not stored yet, forgets who is away, and listens for the other replicas. */
  keep(): Promise<void>
  /** Replicas that were heard a moment ago, or have just been heard of, and this one. */
  replicas(): Promise<readonly string[]>
}

export interface AcknowledgementsOptions {
  readonly clock: Clock
  readonly store: Pick<Store, 'acknowledgements' | 'replicas' | 'replica' | 'isShared'>
  /** not banned, not deleted */
  readonly isAgent: (id: SpiffeId) => boolean
  /** the cursor of what is published now */
  readonly sequence: () => number
}

interface Seen {
  acknowledged: number
  heardAt: number
  /** the same by a clock that nobody sets: an agent is not away because the time was corrected */
  heard: number
  readonly patience: number
  /** sequences that a stock agent was answered with once */
  pending: number
}

/** three heartbeats of the Control stream, three polls of a stock agent */
const patience = { control: 60_000, poll: 15_000 } as const
/** milliseconds of silence after which a replica counts as dead */
const replicaPatience = 60_000

/** When each replica moved its time last, by our clock: theirs may go wrong. */
function createReplicaWatch({ clock, store }: AcknowledgementsOptions) {
  const seen = new Map<string, { readonly aliveAt: number; readonly at: number }>()
  return {
    async look(): Promise<void> {
      for (const { id, aliveAt } of await store.replicas.list()) {
        if (seen.get(id)?.aliveAt !== aliveAt) seen.set(id, { aliveAt, at: clock.monotonic() })
      }
    },
    /** Milliseconds since it was heard; one that was never heard has just begun. */
    silenceOf: (id: string) => clock.monotonic() - (seen.get(id)?.at ?? clock.monotonic()),
    ids: () => [...seen.keys()],
  }
}

interface Heard {
  hear(agentId: SpiffeId, ms: number): Seen
  /** Once for each bundle, not for each entry. */
  keepOne(agentId: SpiffeId, it: Seen): void
  /** Resolves once what was asked for is in the store, or could not be written. */
  written(): Promise<void>
  forgetAway(): Promise<void>
  /** What the store has of agents that came back from another replica is to be written again. */
  reclaim(rows: readonly AcknowledgementRow[]): void
  readonly seen: ReadonlyMap<SpiffeId, Seen>
  isAway(it: Seen): boolean
}

/** The agents that this replica hears. */
async function openHeard({ clock, store, sequence }: AcknowledgementsOptions): Promise<Heard> {
  const { replica } = store
  const seen = new Map<SpiffeId, Seen>()
  /** the cursors in the store */
  const stored = new Map<SpiffeId, number>()
  const write = createBatch<AcknowledgementRow>((rows) => store.acknowledgements.put(rows))
  const isAway = (it: Seen) => clock.monotonic() - it.heard > it.patience
  let written: Promise<unknown> = Promise.resolve()

  function hear(agentId: SpiffeId, ms: number): Seen {
    const known = seen.get(agentId)
    const now: Seen = {
      acknowledged: known?.acknowledged ?? 0,
      pending: known?.pending ?? 0,
      heardAt: clock.now(),
      heard: clock.monotonic(),
      patience: ms,
    }
    seen.set(agentId, now)
    return now
  }

  for (const row of await store.acknowledgements.list()) {
    if (row.replica !== replica) continue
    hear(row.agentId, row.patience).acknowledged = row.cursor
    stored.set(row.agentId, row.cursor)
  }

  return {
    hear,
    isAway,
    seen,
    keepOne(agentId, it) {
      const before = stored.get(agentId)
      const isNews = it.acknowledged >= sequence() && (before ?? 0) < sequence()
      if (before !== undefined && !isNews) return
      const { acknowledged: cursor, heardAt } = it
      stored.set(agentId, cursor)
      // the next round tries again; the store itself says what is wrong with it
      const writing = write({ agentId, replica, cursor, heardAt, patience: it.patience }).catch(
        () => stored.get(agentId) === cursor && stored.delete(agentId),
      )
      written = Promise.all([written, writing])
    },
    written: async () => void (await written),
    reclaim(rows) {
      const ours = new Map(rows.map((row) => [row.agentId, row]))
      for (const [id, it] of seen) {
        const row = ours.get(id)
        if (row === undefined || (row.replica !== replica && row.heardAt < it.heardAt))
          stored.delete(id)
      }
    },
    async forgetAway() {
      const away = [...seen].filter(([, it]) => isAway(it)).map(([id]) => id)
      if (away.length === 0) return
      await store.acknowledgements.remove(away)
      for (const id of away) {
        seen.delete(id)
        stored.delete(id)
      }
    },
  }
}

/**
 * Those that this replica heard before its last stop count as heard just now, so that nothing is activated
 * behind the back of who has not come back yet.
 */
export async function openAcknowledgements(
  options: AcknowledgementsOptions,
): Promise<Acknowledgements> {
  const { clock, store, isAgent } = options
  const { hear, keepOne, written, forgetAway, reclaim, seen, isAway } = await openHeard(options)
  const watch = createReplicaWatch(options)

  /** What the other replicas say of the agents that they hear. */
  async function foreign() {
    const rows = await store.acknowledgements.list()
    if (store.isShared) await watch.look()
    const theirs = rows.filter((row) => row.replica !== store.replica)
    return new Map(
      theirs.map(({ agentId, cursor: acknowledged, heardAt, replica, ...row }) => {
        const isGone = watch.silenceOf(replica) > Math.max(row.patience, replicaPatience)
        return [agentId, { agentId, acknowledged, heardAt, isGone }]
      }),
    )
  }

  async function present(): Promise<Laggard[]> {
    const others = await foreign()
    // one that went over to another replica is heard there, until it comes back
    const isElsewhere = (id: SpiffeId, { heardAt }: Seen) => {
      const other = others.get(id)
      return other !== undefined && !other.isGone && other.heardAt > heardAt
    }
    const own = [...seen]
      .filter(([id, it]) => !isAway(it) && !isElsewhere(id, it))
      .map(([agentId, { acknowledged, heardAt }]) => ({ agentId, acknowledged, heardAt }))
    const ownIds = new Set(own.map(({ agentId }) => agentId))
    const theirs = [...others.values()]
      .filter((it) => !it.isGone && !ownIds.has(it.agentId))
      .map(({ isGone: _, ...laggard }) => laggard)
    return [...own, ...theirs].filter(({ agentId }) => isAgent(agentId))
  }

  return {
    acknowledge(agentId, cursor) {
      const it = hear(agentId, patience.control)
      it.acknowledged = Math.max(it.acknowledged, cursor)
      keepOne(agentId, it)
    },
    answered(agentId, cursor) {
      const it = hear(agentId, patience.poll)
      if (it.pending >= cursor) it.acknowledged = Math.max(it.acknowledged, cursor)
      it.pending = cursor
      keepOne(agentId, it)
    },
    connected: async () => (await present()).map(({ agentId }) => agentId),
    laggards: async (cursor) =>
      (await present()).filter(({ acknowledged }) => acknowledged < cursor),
    async keep() {
      if (store.isShared) {
        await store.replicas.alive(clock.now())
        await watch.look()
        reclaim(await store.acknowledgements.list())
      }
      await forgetAway()
      for (const [id, it] of seen) keepOne(id, it)
      await written()
    },
    async replicas() {
      if (store.isShared) await watch.look()
      const others = watch.ids().filter((id) => watch.silenceOf(id) <= replicaPatience)
      return [...new Set([store.replica, ...others])]
    },
  }
}

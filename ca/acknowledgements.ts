// Which agents have put to use what was published: what the rotation of authorities waits for.
import type { Clock } from '../runtime/clock.ts'
import type { SpiffeId } from '../spiffe/id.ts'

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
  /** Agents that were heard a moment ago. */
  connected(): readonly SpiffeId[]
  /** Connected agents that do not have what was published at `sequence`. */
  laggards(sequence: number): readonly Laggard[]
}

interface Seen {
  acknowledged: number
  heardAt: number
  /** the same by a clock that nobody sets: an agent is not away because the time was corrected */
  heard: number
  /** milliseconds of silence after which it counts as away */
  readonly patience: number
  /** sequences that a stock agent was answered with once */
  pending: number
}

/** three heartbeats of the Control stream, three polls of a stock agent */
const patience = { control: 60_000, poll: 15_000 } as const

/**
 * In memory: after a start every agent says anew where it is. Those that were `expected` at it count as
 * heard just now, so that nothing is activated behind the back of who has not come back yet. `isAgent`:
 * not banned, not deleted.
 */
export function createAcknowledgements(
  clock: Clock,
  isAgent: (id: SpiffeId) => boolean,
  expected: Iterable<SpiffeId> = [],
): Acknowledgements {
  const seen = new Map<SpiffeId, Seen>()
  for (const id of expected) hear(id, 'control')

  function hear(agentId: SpiffeId, how: keyof typeof patience): Seen {
    const known = seen.get(agentId)
    const now: Seen = {
      acknowledged: known?.acknowledged ?? 0,
      pending: known?.pending ?? 0,
      heardAt: clock.now(),
      heard: clock.monotonic(),
      patience: patience[how],
    }
    seen.set(agentId, now)
    return now
  }

  function connected(): [SpiffeId, Seen][] {
    const now = clock.monotonic()
    return [...seen].filter(([id, it]) => now - it.heard <= it.patience && isAgent(id))
  }

  return {
    acknowledge(agentId, cursor) {
      const it = hear(agentId, 'control')
      it.acknowledged = Math.max(it.acknowledged, cursor)
    },
    answered(agentId, sequence) {
      const it = hear(agentId, 'poll')
      if (it.pending >= sequence) it.acknowledged = Math.max(it.acknowledged, sequence)
      it.pending = sequence
    },
    connected: () => connected().map(([id]) => id),
    laggards(sequence) {
      return connected()
        .filter(([, it]) => it.acknowledged < sequence)
        .map(([agentId, { acknowledged, heardAt }]) => ({ agentId, acknowledged, heardAt }))
    },
  }
}

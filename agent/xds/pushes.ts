// What one xDS stream was told and what became of it, for who watches: each response is sent, then taken,
// refused, or overtaken by a newer one.
import type { AgentCounts, XdsApi } from '../counts.ts'
import type { Kind } from '../proxies/ledger.ts'

export interface Pushes {
  sent(kind: Kind): void
  /** The newest that was sent was taken whole. */
  taken(kind: Kind): void
  refused(kind: Kind): void
}

export function createPushes(api: XdsApi, counts: Pick<AgentCounts, 'pushes'> | undefined): Pushes {
  const count = (outcome: string) => (kind: Kind) => counts?.pushes.add({ api, kind, outcome })
  return { sent: count('sent'), taken: count('taken'), refused: count('refused') }
}

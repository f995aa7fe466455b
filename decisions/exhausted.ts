// Rate limits at a decision point: what is allowed is counted, and may be one too many.
import type { Decided } from '../policies/evaluate.ts'
import { type Buckets, type Exhausted, limitsFor } from '../policies/limits.ts'
import type { Clock } from '../runtime/clock.ts'

export interface Counting {
  /** how often callers have asked */
  readonly buckets: Buckets
  readonly clock: Pick<Clock, 'monotonic'>
}

/** What is allowed takes a token of each limit that speaks of it. */
export function exhaustedBy(
  { buckets, clock }: Counting,
  { decision, guard, request }: Decided,
): Exhausted | undefined {
  if (!decision.allow || guard.limits.length === 0) return undefined
  const limits = limitsFor(guard.limits, request)
  return buckets.take(limits, request.source ?? '', clock.monotonic())
}

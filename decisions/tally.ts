// Counts since the last report. The path of a request only counts and keeps what a denial was made
// of; whoever reports explains it later.

import { isRejection, type Rejection, type Request } from '../policies/attributes/request.ts'
import type { PolicySet } from '../policies/compile.ts'
import { auditOf, type Decision } from '../policies/decide.ts'
import type { Connected, Decided } from '../policies/evaluate.ts'
import type { Exhausted } from '../policies/limits.ts'
import { type Former, reconsider } from '../policies/reconsider.ts'
import { withShadow } from '../policies/shadow.ts'
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import type { DecisionLog } from './decision-log.ts'
import {
  createFlows,
  type Determinant,
  determinantOf,
  type Flow,
  type Outcome,
  undetermined,
} from './flows.ts'

export interface KeptDenial {
  readonly at: number
  readonly policies: PolicySet
  readonly request: Request
  readonly decision: Decision
  /** it was allowed, but asked too often */
  readonly exhausted?: Exhausted | undefined
}

export interface Counts {
  readonly allowed: number
  readonly denied: number
  /** the newest ones */
  readonly denials: readonly KeptDenial[]
  readonly flows: readonly Flow[]
}

export interface Tally {
  /** Counts what was decided; whether it may pass. */
  count(policies: PolicySet, decided: Decided, exhausted?: Exhausted): boolean
  /** Counts what was refused before it could be decided. */
  reject(connected: Pick<Connected, 'source' | 'destination'>, rejection: Rejection): void
  /** Decides again about what was allowed: only a denial is counted. */
  stillAllows(policies: PolicySet, request: Request, former: Former): boolean
  /** a request or connection that failed for another reason than a decision */
  failed(): void
  readonly failures: number
  /** called after something was counted */
  subscribe(listener: () => void): Disposable
  /** What was counted since it was last called; undefined when nothing was. */
  take(): Counts | undefined
}

const mostDenials = 64

function causeOf(decision: Decision, exhausted: Exhausted | undefined): Determinant {
  if (exhausted !== undefined) return { policy: exhausted.limit.name, rule: exhausted.limit.index }
  return determinantOf(decision.rule)
}

/** What AUDIT rules and policies in shadow mode say beside a decision. */
function asidesOf({ guard, request, decision }: Decided) {
  const audit = auditOf(guard, request)
  const shadow = withShadow(guard, request, decision)
  return {
    audit: audit === undefined ? undefined : determinantOf(audit),
    shadow:
      shadow === undefined
        ? undefined
        : {
            outcome: shadow.allow ? ('wouldAllow' as const) : ('wouldDeny' as const),
            ...causeOf(shadow, undefined),
          },
  }
}

const partiesOf = ({ source, destination }: Pick<Request, 'source' | 'destination'>) => ({
  source,
  destination: destination.id,
})

/** What is counted for the next report. */
function createCounts(clock: Clock) {
  const flows = createFlows()
  let [allowed, denied, rejected] = [0, 0, 0]
  let denials: KeptDenial[] = []
  return {
    flows,
    allow: () => allowed++,
    reject: () => rejected++,
    deny(denial: Omit<KeptDenial, 'at'>): void {
      denied++
      if (denials.length === mostDenials) denials.shift()
      denials.push({ at: clock.now(), ...denial })
    },
    take(): Counts | undefined {
      if (allowed + denied + rejected === 0) return undefined
      const counts = { allowed, denied, denials, flows: flows.take() }
      allowed = denied = rejected = 0
      denials = []
      return counts
    },
  }
}

function outcomeOf({ decision }: Decided, exhausted: Exhausted | undefined): Outcome {
  if (!decision.allow) return 'denied'
  return exhausted === undefined ? 'allowed' : 'limited'
}

const nobody: DecisionLog = () => {}

export function createTally(clock: Clock, note: DecisionLog = nobody): Tally {
  const changes = createTopic<void>()
  const counts = createCounts(clock)
  const { flows } = counts
  let failures = 0

  function write(decided: Decided, exhausted?: Exhausted): void {
    const { request, decision } = decided
    const outcome = outcomeOf(decided, exhausted)
    const [parties, by] = [partiesOf(request), causeOf(decision, exhausted)]
    const { audit, shadow } = asidesOf(decided)
    flows.add(outcome, parties, by)
    if (audit !== undefined) flows.add('audited', parties, audit)
    if (shadow !== undefined) flows.add(shadow.outcome, parties, shadow)
    note({ outcome, request, by, audit, shadow })
    changes.publish()
  }

  return {
    count(policies, decided, exhausted) {
      const { request, decision } = decided
      const passes = decision.allow && exhausted === undefined
      if (passes) counts.allow()
      else counts.deny({ policies, request, decision, exhausted })
      write(decided, exhausted)
      return passes
    },
    reject({ source, destination }, { reason }) {
      counts.reject()
      const request = { source, destination, http: undefined }
      flows.add('rejected', partiesOf(request), undetermined)
      note({ outcome: 'rejected', request, reason })
      changes.publish()
    },
    stillAllows(policies, asked, former) {
      const again = reconsider(policies, asked, former)
      // as at the door, a token that is refused is no decision
      if (isRejection(again)) return false
      const { decision, request } = again
      if (decision.allow) return true
      counts.deny({ policies, request, decision })
      write({ kind: 'decided', ...again })
      return false
    },
    failed() {
      failures++
      changes.publish()
    },
    get failures() {
      return failures
    },
    subscribe: (listener) => changes.subscribe(listener),
    take: counts.take,
  }
}

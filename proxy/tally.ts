// Counts since the last report. The path of a request only counts and keeps what a denial was made
// of; whoever reports explains it later.
import type { PolicySet } from '../policies/compile.ts'
import { type Decision, decide } from '../policies/decide.ts'
import type { Request } from '../policies/request.ts'
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'

export interface KeptDenial {
  readonly at: number
  readonly policies: PolicySet
  readonly request: Request
  readonly decision: Decision
}

export interface Counts {
  readonly allowed: number
  readonly denied: number
  /** the newest ones */
  readonly denials: readonly KeptDenial[]
}

export interface Tally {
  /** Decides, and counts the answer. */
  allows(policies: PolicySet, request: Request): boolean
  /** Decides again about what was allowed before: only a denial is counted. */
  stillAllows(policies: PolicySet, request: Request): boolean
  /** a request or connection that failed for another reason than a decision */
  failed(): void
  readonly failures: number
  /** called after something was counted */
  subscribe(listener: () => void): Disposable
  /** What was counted since it was last called; undefined when nothing was. */
  take(): Counts | undefined
}

const mostDenials = 64

export function createTally(clock: Clock): Tally {
  const changes = createTopic<void>()
  let allowed = 0
  let denied = 0
  let failures = 0
  let denials: KeptDenial[] = []

  function deny(policies: PolicySet, request: Request, decision: Decision): void {
    denied++
    if (denials.length === mostDenials) denials.shift()
    denials.push({ at: clock.now(), policies, request, decision })
    changes.publish()
  }

  return {
    allows(policies, request) {
      const decision = decide(policies, request)
      if (!decision.allow) {
        deny(policies, request, decision)
        return false
      }
      allowed++
      changes.publish()
      return true
    },
    stillAllows(policies, request) {
      const decision = decide(policies, request)
      if (!decision.allow) deny(policies, request, decision)
      return decision.allow
    },
    failed() {
      failures++
      changes.publish()
    },
    get failures() {
      return failures
    },
    subscribe: (listener) => changes.subscribe(listener),
    take() {
      if (allowed + denied === 0) return undefined
      const counts = { allowed, denied, denials }
      allowed = 0
      denied = 0
      denials = []
      return counts
    },
  }
}

// Whether one request is asked again: by the spec, by what became of it, and by how many others are.
import type { Failure } from './attempt.ts'
import type { Body } from './body.ts'
import type { Again } from './onward.ts'
import { type Asking, backoffBefore, mayAskAgain } from './retry.ts'

export interface Repeats {
  readonly tried: ReadonlySet<string>
  /** An attempt at this endpoint begins. */
  begin(key: string): void
  /** Milliseconds until the next attempt; undefined when there is none. */
  next(failure: Pick<Failure, 'conditions' | 'isLasting'>): number | undefined
  end(): void
}

export function createRepeats(
  again: Again | undefined,
  { asking, body }: { readonly asking: Asking; readonly body: Body },
): Repeats {
  const tried = new Set<string>()
  let attempts = 0
  let giveBack = () => {}
  return {
    tried,
    begin(key) {
      tried.add(key)
      attempts++
    },
    next({ conditions, isLasting = false }) {
      if (again === undefined || attempts > again.retries.attempts) return undefined
      if (!mayAskAgain(again.retries, conditions, asking) || !body.isRepeatable) return undefined
      if (isLasting && !again.hasOther(tried)) return undefined
      giveBack()
      const taken = again.take()
      if (taken === undefined) return undefined
      giveBack = taken
      return backoffBefore(attempts, again.retries, again.random)
    },
    end: () => giveBack(),
  }
}

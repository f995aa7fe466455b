// Who called whom and what was decided, counted: what metrics of callers and callees are made of.
import type { SpiffeId } from '../spiffe/id.ts'

/** `rejected` before any policy was asked; the last three beside the decision itself. */
export type Outcome =
  | 'allowed'
  | 'denied'
  | 'limited'
  | 'rejected'
  | 'audited'
  | 'wouldDeny'
  | 'wouldAllow'

export interface Parties {
  readonly source: string | undefined
  readonly destination: SpiffeId | undefined
}

/** What determined an outcome. */
export interface Determinant {
  /** namespace/name, empty when nothing matched */
  readonly policy: string
  /** index from 0 */
  readonly rule: number
}

export interface Flow extends Determinant {
  readonly source: string
  readonly destination: string
  readonly outcome: Outcome
  readonly count: number
}

export interface Flows {
  add(outcome: Outcome, parties: Parties, by: Determinant): void
  /** What was counted since it was last called. */
  take(): readonly Flow[]
}

const mostFlows = 1000
const others = '(others)'

export const undetermined: Determinant = { policy: '', rule: 0 }

export function createFlows(): Flows {
  let flows = new Map<string, { -readonly [key in keyof Flow]: Flow[key] }>()
  return {
    add(outcome, { source = '', destination = '' }, { policy, rule }) {
      const key = `${source} ${destination} ${outcome} ${policy} ${rule}`
      const known = flows.get(key)
      if (known !== undefined) {
        known.count++
        return
      }
      if (flows.size < mostFlows) {
        flows.set(key, { source, destination, outcome, policy, rule, count: 1 })
        return
      }
      const unnamed = `${outcome} ${destination}`
      const rest = flows.get(unnamed)
      if (rest !== undefined) rest.count++
      else flows.set(unnamed, { source: others, destination, outcome, ...undetermined, count: 1 })
    },
    take() {
      const taken = [...flows.values()]
      flows = new Map()
      return taken
    },
  }
}

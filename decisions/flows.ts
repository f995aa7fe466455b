// Who called whom and what was decided, counted: what metrics of callers and callees are made of.
import { policyName } from '../policies/language/policy.ts'
import type { CompiledRule } from '../policies/rules/rule.ts'
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

const determinants = new WeakMap<CompiledRule, Determinant>()

/** The same value again for the same rule. */
export function determinantOf(rule: CompiledRule | undefined): Determinant {
  if (rule === undefined) return undetermined
  const known = determinants.get(rule)
  if (known !== undefined) return known
  const made = { policy: policyName(rule.policy), rule: rule.index }
  determinants.set(rule, made)
  return made
}

type Counted = { -readonly [key in keyof Flow]: Flow[key] }

/** Flows by their source and policy: names that come again are the same strings, and need no new key. */
function createTable() {
  const bySource = new Map<string, Map<string, Counted[]>>()
  let size = 0

  function placeOf(source: string, policy: string): Counted[] {
    const byPolicy = bySource.get(source) ?? new Map<string, Counted[]>()
    if (byPolicy.size === 0) bySource.set(source, byPolicy)
    const place = byPolicy.get(policy) ?? []
    if (place.length === 0) byPolicy.set(policy, place)
    return place
  }

  return {
    get size() {
      return size
    },
    find: ({ source, policy, ...it }: Omit<Flow, 'count'>): Counted | undefined =>
      bySource
        .get(source)
        ?.get(policy)
        ?.find(
          ({ outcome, destination, rule }) =>
            outcome === it.outcome && destination === it.destination && rule === it.rule,
        ),
    add(flow: Omit<Flow, 'count'>): void {
      placeOf(flow.source, flow.policy).push({ ...flow, count: 1 })
      size++
    },
    all: (): readonly Flow[] => [...bySource.values()].flatMap((it) => [...it.values()].flat()),
  }
}

export function createFlows(): Flows {
  let table = createTable()

  /** Whether it was counted. */
  function count(flow: Omit<Flow, 'count'>): boolean {
    const known = table.find(flow)
    if (known !== undefined) known.count++
    return known !== undefined
  }

  return {
    add(outcome, { source = '', destination = '' }, { policy, rule }) {
      const flow = { source, destination, outcome, policy, rule }
      if (count(flow)) return
      if (table.size < mostFlows) return table.add(flow)
      const unnamed = { ...flow, source: others, ...undetermined }
      if (!count(unnamed)) table.add(unnamed)
    },
    take() {
      const taken = table.all()
      table = createTable()
      return taken
    },
  }
}

// What a rule of the linter is: a row with its name, how grave it is, what it says and how to mend it; and
// what it suspects. A suspicion becomes a finding when the engine answers its witness as it says.
import type { Placed, PolicyDocument } from '../language/read.ts'
import type { RuleField } from '../language/rule-fields.ts'
import { patternOf } from '../rules/pattern.ts'
import type { CompiledRule } from '../rules/rule.ts'
import type { Change, Draft, Outcome } from './draft.ts'
import { allowedDrafts, type Ground } from './ground.ts'
import { samplesOf } from './samples.ts'

export type Severity = 'error' | 'warning'

/** A place in a document. */
export interface Spot {
  readonly kind: PolicyDocument['kind']
  readonly document: Pick<Placed, 'namespace' | 'name' | 'excused' | 'file' | 'line'>
  readonly path: readonly (string | number)[]
}

export interface Suspicion {
  readonly at: Spot
  /** one sentence: what is so at this place */
  readonly says: string
  /** instead of the row's own */
  readonly mend?: string
  /** requests that may show it; made one after the other until one does */
  readonly witnesses: () => Iterable<Draft>
  readonly shows: (outcome: Outcome, draft: Draft) => boolean
  /** milliseconds since 1970 at which the witness is asked, instead of now */
  readonly when?: number
}

export interface LintRule {
  readonly name: string
  readonly severity: Severity
  /** what it says, in general */
  readonly says: string
  readonly mend: string
  readonly suspect: (ground: Ground) => Iterable<Suspicion>
}

export function spotIn(
  { policy, index }: CompiledRule,
  ...path: readonly (string | number)[]
): Spot {
  return { kind: 'AuthorizationPolicy', document: policy, path: ['spec', 'rules', index, ...path] }
}

export const quoted = (text: string) => JSON.stringify(text)

export function isSameRule(one: CompiledRule | undefined, other: CompiledRule): boolean {
  return one !== undefined && one.policy === other.policy && one.index === other.index
}

export const isAllowedBy =
  (rule: CompiledRule) =>
  (outcome: Outcome): boolean =>
    outcome.decision === 'allow' && isSameRule(outcome.rule, rule)

export const isAllowed = (outcome: Outcome): boolean => outcome.decision === 'allow'

/** A request as a rule means it, and the same in a form that it does not. */
export interface Twin {
  readonly at: Change
  readonly away: Change
}

/** Requests that a DENY denies, changed so that it may not: to workloads where an ALLOW lets them in. */
function* pastDeny(ground: Ground, rule: CompiledRule, { at, away }: Twin): Generator<Draft> {
  for (const base of allowedDrafts(ground, rule.policy, away)) {
    for (const denied of samplesOf(rule, at(base), { pin: at })) {
      const outcome = ground.ask(denied)
      if (outcome.decision === 'deny' && outcome.rule !== undefined) yield away(denied)
    }
  }
}

/** Requests that an ALLOW lets in, although in another form it would not. */
function* pastException(ground: Ground, rule: CompiledRule, { at, away }: Twin): Generator<Draft> {
  for (const base of allowedDrafts(ground, rule.policy, away)) {
    for (const draft of samplesOf(rule, base, { pin: away })) {
      if (ground.ask(at(draft)).decision === 'deny') yield draft
    }
  }
}

/** What gets past a DENY, or past what an ALLOW excepts. */
export function escapesFrom(ground: Ground, rule: CompiledRule, twin: Twin): Iterable<Draft> {
  return rule.policy.action === 'DENY'
    ? pastDeny(ground, rule, twin)
    : pastException(ground, rule, twin)
}

/** Whether a field keeps requests out: of a DENY what it says, of an ALLOW what it says not. */
export function keepsOut({ policy }: CompiledRule, { isNegated, part }: RuleField): boolean {
  if (part === 'exceptFor') return false
  return policy.action === (isNegated ? 'ALLOW' : 'DENY')
}

/** Whether a field lets requests through: of an ALLOW what it says, of a DENY what it says not. */
export function letsThrough({ policy }: CompiledRule, { isNegated, part }: RuleField): boolean {
  if (policy.action !== 'ALLOW' && policy.action !== 'DENY') return false
  if (part === 'exceptFor') return policy.action === (isNegated ? 'ALLOW' : 'DENY')
  return policy.action === (isNegated ? 'DENY' : 'ALLOW')
}

const endsInside = /[A-Za-z0-9]$/
const startsInside = /^[A-Za-z0-9]/

/** The text of a prefix that ends inside of a name: `/public*`, `td/ns/a*`. */
export function openPrefix(text: string): string | undefined {
  const pattern = patternOf(text)
  return pattern.kind === 'prefix' && endsInside.test(pattern.text) ? pattern.text : undefined
}

/** The text of a suffix that starts inside of a name: `*example.com`. */
export function openSuffix(text: string): string | undefined {
  const pattern = patternOf(text)
  return pattern.kind === 'suffix' && startsInside.test(pattern.text) ? pattern.text : undefined
}

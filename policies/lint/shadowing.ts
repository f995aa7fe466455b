// Rules that change nothing, because another decides the same, or the contrary, whenever they match.
import { isDeepStrictEqual } from 'node:util'
import { policyName } from '../language/policy.ts'
import { type CompiledRule, ruleMatches, testsOfRule } from '../rules/rule.ts'
import { ruleCovers } from './cover.ts'
import type { Draft, Outcome } from './draft.ts'
import { type Ground, isWithin, rulesBy, strangerAt, whomOf } from './ground.ts'
import { type LintRule, type Suspicion, spotIn } from './rule.ts'
import { matchesDraft, samplesOf } from './samples.ts'

const placeOf = ({ policy, index }: CompiledRule) =>
  `rule ${index} of ${policyName(policy)} (${policy.file}:${policy.lines[index] ?? policy.line})`

/** What a rule names as callers, if it names each of them whole. */
function callersOf({ document }: CompiledRule): readonly string[] | undefined {
  const lists = document.from?.map(({ source }) => source.principals)
  if (lists === undefined) return undefined
  const texts = lists.flatMap((list) => list ?? ['*'])
  return texts.some((text) => text.includes('*')) ? undefined : texts
}

interface Candidates {
  /** rules that may match whatever this one does */
  of(rule: CompiledRule): readonly CompiledRule[]
}

/** By caller, so that each rule is compared with few. */
function candidatesAmong(rules: readonly CompiledRule[]): Candidates {
  const byCaller = new Map<string, CompiledRule[]>()
  const ofAnybody: CompiledRule[] = []
  for (const rule of rules) {
    const callers = callersOf(rule)
    if (callers === undefined) ofAnybody.push(rule)
    for (const caller of new Set(callers)) {
      byCaller.set(caller, [...(byCaller.get(caller) ?? []), rule])
    }
  }
  return {
    of(rule) {
      const [caller] = callersOf(rule) ?? []
      return caller === undefined ? ofAnybody : [...(byCaller.get(caller) ?? []), ...ofAnybody]
    },
  }
}

function lastsAsLong(wide: CompiledRule, narrow: CompiledRule): boolean {
  const [end, its] = [wide.policy.expires, narrow.policy.expires]
  return end === undefined || (its !== undefined && end >= its)
}

/** An ALLOW that asks about HTTP anywhere is no rule for TCP (authorization.md §4.9). */
const isForTcp = (rule: CompiledRule) =>
  rule.policy.action !== 'ALLOW' || !testsOfRule(rule).asksHttp

function coversWhole(wide: CompiledRule, narrow: CompiledRule): boolean {
  return (
    (isForTcp(wide) || !isForTcp(narrow)) &&
    isWithin(narrow.policy, wide.policy, wide.mesh) &&
    lastsAsLong(wide, narrow) &&
    (wide.policy.namespace === narrow.policy.namespace || !usesOwnNamespace(wide, narrow)) &&
    ruleCovers(wide.document, narrow.document)
  )
}

/** A service account without namespace means another one in each policy. */
function usesOwnNamespace(...rules: readonly CompiledRule[]): boolean {
  return rules.some(({ document }) =>
    /"(?:serviceAccounts|notServiceAccounts|source\.serviceAccount)"/.test(
      JSON.stringify(document),
    ),
  )
}

/** Requests that `narrow` matches; none when `wide` does not match all of them. */
function matchedByBoth(ground: Ground, narrow: CompiledRule, wide: CompiledRule): readonly Draft[] {
  const base = strangerAt(whomOf(ground.mesh, narrow.policy, wide.policy), ground.mesh)
  const samples = [...samplesOf(narrow, base), ...samplesOf(narrow, { ...base, isTcp: true })]
  return samples.every((draft) => matchesDraft(wide, draft)) ? samples : []
}

const bothMatch =
  (...rules: readonly CompiledRule[]) =>
  (outcome: Outcome): boolean =>
    outcome.decision !== 'reject' && rules.every((rule) => ruleMatches(rule, outcome.request))

const isEqual = (one: CompiledRule, other: CompiledRule) =>
  isDeepStrictEqual(one.document, other.document) &&
  isWithin(one.policy, other.policy, one.mesh) &&
  isWithin(other.policy, one.policy, one.mesh)

/** The pairs of one action in which `narrow` changes nothing. */
function* shadowed(ground: Ground, wanted: 'equal' | 'narrower'): Generator<Suspicion> {
  for (const action of ['ALLOW', 'DENY'] as const) {
    const rules = rulesBy(ground, action)
    const order = new Map(rules.map((rule, i) => [rule, i]))
    const isBefore = (one: CompiledRule, other: CompiledRule) =>
      (order.get(one) ?? 0) < (order.get(other) ?? 0)
    const candidates = candidatesAmong(rules)
    for (const narrow of rules) {
      const wide = candidates.of(narrow).find((it) => {
        if (it === narrow || !coversWhole(it, narrow)) return false
        if (isEqual(it, narrow)) return wanted === 'equal' && isBefore(it, narrow)
        // two that cover one another are told once
        return wanted === 'narrower' && (isBefore(it, narrow) || !coversWhole(narrow, it))
      })
      if (wide === undefined) continue
      const says =
        wanted === 'equal'
          ? `the same rule stands in ${placeOf(wide)}`
          : `${placeOf(wide)} matches whatever this rule matches: it changes nothing`
      yield {
        at: spotIn(narrow),
        says,
        witnesses: () => matchedByBoth(ground, narrow, wide),
        shows: bothMatch(wide, narrow),
      }
    }
  }
}

function* coveredByDeny(ground: Ground): Generator<Suspicion> {
  const candidates = candidatesAmong(rulesBy(ground, 'DENY'))
  for (const rule of rulesBy(ground, 'ALLOW')) {
    const deny = candidates.of(rule).find((it) => coversWhole(it, rule))
    if (deny === undefined) continue
    const bothDo = bothMatch(deny, rule)
    yield {
      at: spotIn(rule),
      says: `never allows anything: DENY ${placeOf(deny)} matches whatever this rule matches`,
      witnesses: () => matchedByBoth(ground, rule, deny),
      shows: (outcome) => outcome.decision === 'deny' && bothDo(outcome),
    }
  }
}

export const shadowingRules: readonly LintRule[] = [
  {
    name: 'duplicate-rule',
    severity: 'warning',
    says: 'the same rule twice in one scope',
    mend: 'delete one of them',
    suspect: (ground) => shadowed(ground, 'equal'),
  },
  {
    name: 'shadowed-rule',
    severity: 'warning',
    says: 'a broader rule of the same action decides the same, always',
    mend: 'delete the rule, or make the broader one narrower',
    suspect: (ground) => shadowed(ground, 'narrower'),
  },
  {
    name: 'allow-under-deny',
    severity: 'warning',
    says: 'a DENY covers an ALLOW whole, so the ALLOW has no effect',
    mend: 'delete the ALLOW, or make the DENY narrower',
    suspect: coveredByDeny,
  },
]

// ALLOW rules that might have matched: what of each stood in the way.
import type { Request } from '../attributes/request.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Policy } from '../language/policy.ts'
import { fieldsOf, type RuleField } from '../language/rule-fields.ts'
import type { FieldTest } from '../rules/field.ts'
import { type Alternatives, type CompiledRule, compileRule, testsOfRule } from '../rules/rule.ts'
import { hidden, holdsSecret, shortened, shownValue } from './values.ts'

export interface Failing {
  /** as it was written: `paths` */
  readonly name: string
  /** from the rule: `to[0].operation.paths` */
  readonly place: string
  /** what the rule wants there, at most a few; empty for what is no list */
  readonly wanted: readonly string[]
  /** what the request has; undefined when it has none */
  readonly value: string | undefined
}

export interface NearMiss {
  readonly rule: CompiledRule
  readonly failing: readonly Failing[]
}

const failingOf = (tests: readonly FieldTest[], request: Request) =>
  tests.filter((test) => !test.holds(request))

/** The alternative that fails least. */
function nearest(alternatives: Alternatives | undefined, request: Request): readonly FieldTest[] {
  const all = (alternatives ?? []).map((tests) => failingOf(tests, request))
  return all.sort((a, b) => a.length - b.length)[0] ?? []
}

const mostWanted = 8

export function wantedOf(field: RuleField): readonly string[] {
  if (holdsSecret(field)) return [hidden]
  const { texts } = field
  const first = texts.slice(0, mostWanted).map(shortened)
  const more = texts.length - first.length
  return more > 0 ? [...first, `… ${more} more`] : first
}

function failed(
  rule: CompiledRule,
  { name, place }: FieldTest,
  { request, fields }: { request: Request; fields: ReadonlyMap<string, RuleField> },
): Failing {
  const field = fields.get(place)
  return {
    name,
    place,
    wanted: field === undefined ? [] : wantedOf(field),
    value: field === undefined ? undefined : shownValue(field, request, rule),
  }
}

/** What is no field and can stand in the way as well. */
function besides(rule: CompiledRule, request: Request): readonly Failing[] {
  const { exceptFor, condition, asksHttp } = testsOfRule(rule)
  const exempt = exceptFor.findIndex((tests) => tests.every((test) => test.holds(request)))
  const nothing = { wanted: [], value: undefined }
  const whose = { ...nothing, name: 'exceptFor', place: `exceptFor[${exempt}].source` }
  const text = shortened(rule.document.condition ?? '')
  const answer = condition?.(request) ?? true
  return [
    ...(exempt < 0 ? [] : [whose]),
    ...(answer === true
      ? []
      : [{ name: 'condition', place: 'condition', wanted: [text], value: String(answer) }]),
    ...(asksHttp && request.http === undefined
      ? [{ ...nothing, name: 'HTTP', place: '', value: 'a TCP connection' }]
      : []),
  ]
}

function missOf(rule: CompiledRule, request: Request): NearMiss {
  const { from, to, when } = testsOfRule(rule)
  const fields = new Map(fieldsOf(rule.document).map((field) => [field.place, field]))
  const tests = [...nearest(from, request), ...nearest(to, request), ...failingOf(when, request)]
  return {
    rule,
    failing: [
      ...tests.map((test) => failed(rule, test, { request, fields })),
      ...besides(rule, request),
    ],
  }
}

/** How many ALLOW rules `policies` have, and those that do not match, the nearest first. */
export function allowRules(
  policies: readonly Policy[],
  request: Request,
  mesh: Mesh,
): { readonly rules: number; readonly misses: readonly NearMiss[] } {
  const rules = policies
    .filter(({ action, isShadow }) => action === 'ALLOW' && !isShadow)
    .flatMap((policy) => policy.rules.map((_, i) => compileRule(policy, i, mesh)))
  const misses = rules
    .map((rule) => missOf(rule, request))
    .filter(({ failing }) => failing.length > 0)
    .sort((a, b) => a.failing.length - b.failing.length)
  return { rules: rules.length, misses }
}

/** The ALLOW rules of `policies` that do not match, the nearest first. */
export function nearMisses(
  policies: readonly Policy[],
  request: Request,
  mesh: Mesh,
): readonly NearMiss[] {
  return allowRules(policies, request, mesh).misses
}

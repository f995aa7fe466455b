// Policies to what decisions are made with: patterns parsed, rules sorted by namespace and action.
import { matches, type Pattern, patternOf } from './pattern.ts'
import type { Policy } from './read.ts'
import type { Request } from './request.ts'
import type { RuleDocument } from './schema.ts'

/** The fields a rule can ask about; each has one attribute of the request. */
export type Field = 'principals' | 'methods' | 'paths' | 'ports'

export interface FieldTest {
  readonly field: Field
  readonly patterns: readonly Pattern[]
}

/** Alternatives of tests that all have to hold; an empty list of alternatives holds always. */
export type Alternatives = readonly (readonly FieldTest[])[]

export interface CompiledRule {
  readonly policy: Policy
  readonly index: number
  readonly from: Alternatives
  readonly to: Alternatives
  /** whether any alternative asks about HTTP */
  readonly asksHttp: boolean
}

export interface Scope {
  readonly deny: readonly CompiledRule[]
  readonly allow: readonly CompiledRule[]
}

export interface PolicySet {
  /** rules by the namespace of the destination; those of the root namespace are in each */
  readonly scopes: ReadonlyMap<string, Scope>
  /** what holds in a namespace without policies of its own */
  readonly meshWide: Scope
  readonly policies: readonly Policy[]
  readonly rootNamespace: string
}

const httpOnly: ReadonlySet<Field> = new Set(['methods', 'paths'])

function testsOf(
  fields: Readonly<Partial<Record<Field, readonly string[] | undefined>>>,
): FieldTest[] {
  const names: readonly Field[] = ['principals', 'methods', 'paths', 'ports']
  return names.flatMap((field) => {
    const texts = fields[field]
    return texts === undefined ? [] : [{ field, patterns: texts.map(patternOf) }]
  })
}

function compileRule(policy: Policy, rule: RuleDocument, index: number): CompiledRule {
  const from = (rule.from ?? []).map(({ source }) => testsOf(source))
  const to = (rule.to ?? []).map(({ operation }) => testsOf(operation))
  return { policy, index, from, to, asksHttp: to.flat().some(({ field }) => httpOnly.has(field)) }
}

function scopeOf(policies: readonly Policy[]): Scope {
  const rulesOf = (action: Policy['action']) =>
    policies
      .filter((policy) => policy.action === action)
      .flatMap((policy) => policy.rules.map((rule, i) => compileRule(policy, rule, i)))
  return { deny: rulesOf('DENY'), allow: rulesOf('ALLOW') }
}

export function compile(
  policies: readonly Policy[],
  { rootNamespace = 'istio-system' } = {},
): PolicySet {
  const meshWide = policies.filter((policy) => policy.namespace === rootNamespace)
  const names = new Set(policies.map((policy) => policy.namespace))
  const scopes = [...names].map((name): [string, Scope] => [
    name,
    scopeOf(
      policies.filter((policy) => policy.namespace === name || policy.namespace === rootNamespace),
    ),
  ])
  return { scopes: new Map(scopes), meshWide: scopeOf(meshWide), policies, rootNamespace }
}

export const noPolicies: PolicySet = compile([])

function valuesOf(field: Field, request: Request, mode: Policy['action']): readonly string[] {
  switch (field) {
    case 'principals':
      return request.source === undefined ? [] : [request.source.slice('spiffe://'.length)]
    case 'methods':
      return request.http === undefined ? [] : [request.http.method]
    case 'paths':
      if (request.http === undefined) return []
      // DENY matches if any reading does, ALLOW only what is forwarded (design.md §7)
      return mode === 'DENY' ? request.http.readings : [request.http.path]
    case 'ports':
      return [String(request.destination.port)]
  }
}

/**
 * Whether one test holds. On TCP an HTTP field never holds for ALLOW and always for DENY, which makes
 * the ALLOW narrower and the DENY wider (authorization.md §4.9).
 */
export function holds(test: FieldTest, request: Request, mode: Policy['action']): boolean {
  if (request.http === undefined && httpOnly.has(test.field)) return mode === 'DENY'
  const values = valuesOf(test.field, request, mode)
  return values.some((value) => test.patterns.some((pattern) => matches(pattern, value)))
}

function anyHolds(alternatives: Alternatives, request: Request, mode: Policy['action']): boolean {
  if (alternatives.length === 0) return true
  return alternatives.some((tests) => tests.every((test) => holds(test, request, mode)))
}

export function ruleMatches(rule: CompiledRule, request: Request): boolean {
  const mode = rule.policy.action
  // an ALLOW rule that asks about HTTP anywhere is no rule for TCP (authorization.md §4.9)
  if (mode === 'ALLOW' && rule.asksHttp && request.http === undefined) return false
  return anyHolds(rule.from, request, mode) && anyHolds(rule.to, request, mode)
}

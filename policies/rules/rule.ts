// One rule of a policy, made ready to be asked: its alternatives as tests, made when it is first needed.
// Most rules of a large set are never asked at all.
import type { Request } from '../attributes/request.ts'
import type { OperationDocument, RuleDocument, SourceDocument } from '../language/authorization.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Policy } from '../language/policy.ts'
import { type Condition, compileCondition } from './condition.ts'
import { conditionTests, type FieldTest, operationTests, sourceTests } from './field.ts'
import { quantifierOf } from './quantify.ts'
import type { Holds, Setting } from './test.ts'

/** Alternatives of tests that all have to hold; undefined holds always. */
export type Alternatives = readonly (readonly FieldTest[])[]

/** The tests of a rule, side by side with how they are written. */
export interface RuleTests {
  readonly from: Alternatives | undefined
  readonly to: Alternatives | undefined
  readonly when: readonly FieldTest[]
  readonly exceptFor: Alternatives
  readonly condition: Condition | undefined
  /** whether any of it asks about HTTP */
  readonly asksHttp: boolean
}

export interface CompiledRule {
  readonly policy: Policy
  /** from 0 */
  readonly index: number
  readonly document: RuleDocument
  readonly mesh: Mesh
  /** made when they are first needed; owned by this file */
  made: { readonly tests: RuleTests; readonly http: Holds; readonly tcp: Holds } | undefined
}

const always: Holds = () => true

/** All tests, as one; most rules have one or two. */
function allOf(tests: readonly FieldTest[]): Holds {
  const [first, second, ...others] = tests.map(({ holds }) => holds)
  if (first === undefined) return always
  if (second === undefined) return first
  if (others.length === 0) return (request) => first(request) && second(request)
  return (request) => {
    for (const test of tests) if (!test.holds(request)) return false
    return true
  }
}

function anyOf(alternatives: Alternatives | undefined): Holds {
  if (alternatives === undefined) return always
  const all = alternatives.map(allOf)
  const [only] = all
  if (only !== undefined && all.length === 1) return only
  return (request) => {
    for (const holds of all) if (holds(request)) return true
    return false
  }
}

/** On TCP all but an ALLOW leaves HTTP out of what it asks (§4.9): the rule gets wider. */
function withoutHttp(tests: RuleTests): RuleTests {
  const plain = (list: readonly FieldTest[]) => list.filter(({ asksHttp }) => !asksHttp)
  return {
    ...tests,
    from: tests.from?.map(plain),
    to: tests.to?.map(plain),
    when: plain(tests.when),
  }
}

function testsOf(policy: Policy, document: RuleDocument, mesh: Mesh): RuleTests {
  const setting: Setting = {
    mesh,
    quantifier: quantifierOf(policy.action, mesh.profile),
    namespace: policy.namespace,
  }
  // who is exempt from a DENY has to be so beyond doubt, and from an ALLOW at the least doubt
  const opposite: Setting = {
    ...setting,
    quantifier: policy.action === 'ALLOW' ? 'widest' : 'narrowest',
  }
  const sources = (
    list: readonly { readonly source: SourceDocument }[] | undefined,
    name: string,
    its: Setting,
  ) => list?.map(({ source }, i) => sourceTests(source, `${name}[${i}].source`, its))
  const operations = (list: readonly { readonly operation: OperationDocument }[] | undefined) =>
    list?.map(({ operation }, i) => operationTests(operation, `to[${i}].operation`, setting))
  const from = sources(document.from, 'from', setting)
  const to = operations(document.to)
  const when = (document.when ?? []).flatMap((it, i) => conditionTests(it, `when[${i}]`, setting))
  const condition =
    document.condition === undefined ? undefined : compileCondition(document.condition)
  const all = [...(from ?? []), ...(to ?? []), when].flat()
  return {
    from,
    to,
    when,
    exceptFor: sources(document.exceptFor, 'exceptFor', opposite) ?? [],
    condition: condition === undefined ? undefined : conditionOf(condition),
    asksHttp:
      all.some(({ asksHttp }) => asksHttp) || (condition?.ok === true && condition.asksHttp),
  }
}

function conditionOf(compiled: ReturnType<typeof compileCondition>): Condition {
  // read before, so this is a condition that slipped past the reader: it decides nothing
  return compiled.ok ? compiled.holds : () => 'unknown'
}

/** The tests as one; a condition that cannot be evaluated answers `whenUnknown`. */
function joined(tests: RuleTests, whenUnknown: boolean): Holds {
  const [from, to, when] = [anyOf(tests.from), anyOf(tests.to), allOf(tests.when)]
  const plain: Holds =
    when === always
      ? (request) => from(request) && to(request)
      : (request) => from(request) && to(request) && when(request)
  const { condition, exceptFor } = tests
  if (condition === undefined && exceptFor.length === 0) return plain
  const isExempt = exceptFor.length === 0 ? () => false : anyOf(exceptFor)
  return (request) => {
    if (!plain(request) || isExempt(request)) return false
    const answer = condition === undefined || condition(request)
    return answer === 'unknown' ? whenUnknown : answer
  }
}

function makeOf(rule: CompiledRule): NonNullable<CompiledRule['made']> {
  const { policy, document, mesh } = rule
  const tests = testsOf(policy, document, mesh)
  const isAllow = policy.action === 'ALLOW'
  const http = joined(tests, !isAllow)
  // an ALLOW rule that asks about HTTP anywhere is no rule for TCP (§4.9)
  const onTcp: Holds = tests.asksHttp ? () => false : http
  return { tests, http, tcp: isAllow ? onTcp : joined(withoutHttp(tests), true) }
}

export function compileRule(policy: Policy, index: number, mesh: Mesh): CompiledRule {
  return { policy, index, document: policy.rules[index] ?? {}, mesh, made: undefined }
}

function madeOf(rule: CompiledRule): NonNullable<CompiledRule['made']> {
  rule.made ??= makeOf(rule)
  return rule.made
}

/** The tests of a rule, for explanations. */
export function testsOfRule(rule: CompiledRule): RuleTests {
  return madeOf(rule).tests
}

/** Never throws: what cannot be evaluated makes a DENY match, and an ALLOW not. */
export function ruleMatches(rule: CompiledRule, request: Request): boolean {
  try {
    const made = rule.made ?? madeOf(rule)
    return request.http === undefined ? made.tcp(request) : made.http(request)
  } catch {
    return rule.policy.action !== 'ALLOW'
  }
}

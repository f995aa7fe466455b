// Changes that might flip a decision, the one with the least effect first. Whether they do, the engine says.
import type { Request } from '../attributes/request.ts'
import type { Decision } from '../decide.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Policy } from '../language/policy.ts'
import {
  type Attribute,
  fieldsOf,
  identityAttributes,
  type RuleField,
} from '../language/rule-fields.ts'
import { type CompiledRule, testsOfRule } from '../rules/rule.ts'
import type { Edit } from './edit.ts'
import { exactPolicy } from './exact.ts'
import type { NearMiss } from './near.ts'
import { isLiteral, literalValues, valuesOf } from './values.ts'

/** Edits that are done together. */
export type Edits = readonly Edit[]

const pathIn = ({ index }: CompiledRule, path: readonly (string | number)[]) => [
  'spec',
  'rules',
  index,
  ...path,
]

/** Texts of a field that are the request's own, word by word. */
function ownTexts(field: RuleField, request: Request, rule: CompiledRule): readonly string[] {
  const own = valuesOf(field, request, rule)
  return field.texts.filter((text) => isLiteral(text) && own.includes(text))
}

/** Own values out of a list in which others stay. */
function taken(field: RuleField, request: Request, rule: CompiledRule): Edit | undefined {
  const values = ownTexts(field, request, rule)
  if (values.length === 0 || values.length === field.texts.length) return undefined
  return { do: 'take', policy: rule.policy, path: pathIn(rule, field.path), values }
}

/** All own values more in a list. */
function added(field: RuleField, request: Request, rule: CompiledRule): Edit | undefined {
  const own = literalValues(field, request, rule)
  const values = own?.filter((text) => !field.texts.includes(text)) ?? []
  if (values.length === 0) return undefined
  return { do: 'add', policy: rule.policy, path: pathIn(rule, field.path), values }
}

/** One value more, where one is enough; then all of them. */
function* addings(field: RuleField, request: Request, rule: CompiledRule): Generator<Edits> {
  const all = added(field, request, rule)
  if (all?.do !== 'add') return
  const [first] = all.values
  if (all.values.length > 1) yield [{ ...all, values: [first] }]
  yield [all]
}

/** Of a rule that fails in one place only: what would make it match. */
export function* wideningOf({ rule, failing }: NearMiss, request: Request): Generator<Edits> {
  const [only, ...others] = failing
  if (only === undefined || others.length > 0) return
  const fields = fieldsOf(rule.document)
  const field = fields.find(({ place }) => place === only.place)
  if (field !== undefined) {
    if (!field.isNegated) return yield* addings(field, request, rule)
    const edit = taken(field, request, rule)
    if (edit !== undefined) yield [edit]
    return
  }
  // exempt: by one source of exceptFor
  for (const excepted of fields) {
    if (!excepted.place.startsWith(`${only.place}.`) || excepted.isNegated) continue
    const edit = taken(excepted, request, rule)
    if (edit !== undefined) yield [edit]
  }
}

interface Matched {
  readonly rule: CompiledRule
  readonly request: Request
  /** fields of each source, operation, and of the conditions, that match together */
  readonly alternatives: readonly (readonly RuleField[])[]
}

/** Per part of a rule the alternatives by which it matches: each would have to match no more. */
function matchedParts(rule: CompiledRule, request: Request): readonly Matched[] {
  const { from, to, when } = testsOfRule(rule)
  const fields = fieldsOf(rule.document)
  const isHttp = request.http !== undefined
  const of = (part: 'from' | 'to', all: typeof from): Matched[] => {
    const alternatives = (all ?? []).flatMap((tests, i) => {
      // on TCP a rule leaves out what it asks about HTTP
      const holds = tests.every((test) => (test.asksHttp && !isHttp) || test.holds(request))
      return holds ? [fields.filter((it) => it.part === part && it.alternative === i)] : []
    })
    return alternatives.length === 0 ? [] : [{ rule, request, alternatives }]
  }
  const conditions = fields.filter(({ part }) => part === 'when')
  return [
    ...of('from', from),
    ...of('to', to),
    ...(when.length === 0 ? [] : [{ rule, request, alternatives: [conditions] }]),
  ]
}

/** One edit for each alternative; undefined when there is none for one of them. */
function forEach(
  { alternatives, rule, request }: Matched,
  editOf: typeof taken,
  isAsked: (field: RuleField) => boolean,
): Edits | undefined {
  const edits = alternatives.map((fields) =>
    fields
      .filter(isAsked)
      .map((field) => editOf(field, request, rule))
      .find((edit) => edit !== undefined),
  )
  return edits.every((edit) => edit !== undefined) ? edits : undefined
}

const negated = ({ isNegated }: RuleField) => isNegated
const positive = ({ isNegated }: RuleField) => !isNegated
const ofCaller = (field: RuleField) => positive(field) && identityAttributes.has(field.attribute)

function own(attribute: Attribute, request: Request, rule: CompiledRule): readonly string[] {
  return literalValues({ attribute, names: [] }, request, rule) ?? []
}

/** The caller as an exception of castellan.dev/v1. */
function exempted(rule: CompiledRule, request: Request): Edits | undefined {
  const { policy } = rule
  const [principal] = own('principals', request, rule)
  if (policy.isIstio || policy.action === 'CUSTOM' || principal === undefined) return undefined
  const values = [{ source: { principals: [principal] } }]
  return [{ do: 'add', policy, path: pathIn(rule, ['exceptFor']), values }]
}

/** The caller as one of whom the rule does not speak, in each source by which it matches. */
function* excluded(rule: CompiledRule, request: Request): Generator<Edits> {
  const { policy, document } = rule
  const names: readonly (readonly [string, Attribute])[] =
    policy.action === 'CUSTOM'
      ? [['notIpBlocks', 'ipBlocks']]
      : [
          ['notPrincipals', 'principals'],
          ['notIpBlocks', 'ipBlocks'],
        ]
  const sources = matchedParts(rule, request)
    .flatMap(({ alternatives }) => alternatives)
    .flatMap(([first]) => (first?.part === 'from' ? [first.path.slice(0, -1)] : []))
  for (const [name, attribute] of names) {
    const values = own(attribute, request, rule)
    if (values.length === 0) continue
    if (document.from === undefined) {
      const list = [{ source: { [name]: values } }]
      yield [{ do: 'add', policy, path: pathIn(rule, ['from']), values: list }]
      continue
    }
    if (sources.length === 0) continue
    yield sources.map(
      (source): Edit => ({ do: 'add', policy, path: pathIn(rule, [...source, name]), values }),
    )
  }
}

/** The rule away; the reader takes no DENY without rules. */
function dropped({ policy, index }: CompiledRule): Edits {
  const isOnly = policy.rules.length === 1 && policy.action !== 'ALLOW'
  return [{ do: 'drop', policy, path: isOnly ? [] : ['spec', 'rules', index] }]
}

/** What would make a DENY or CUSTOM rule not match the request. */
export function* sparing(rule: CompiledRule, request: Request): Generator<Edits> {
  const parts = matchedParts(rule, request)
  for (const part of parts) {
    const edits = forEach(part, added, negated)
    if (edits !== undefined) yield edits
  }
  const exemption = exempted(rule, request)
  if (exemption !== undefined) yield exemption
  yield* excluded(rule, request)
  for (const part of parts) {
    const edits = forEach(part, taken, positive)
    if (edits !== undefined) yield edits
  }
  yield dropped(rule)
}

/** What would make the request denied that `rule` allows, or that the default does. */
export function* denying(
  rule: CompiledRule | undefined,
  request: Request,
  mesh: Mesh,
): Generator<Edits> {
  if (rule !== undefined) {
    for (const part of matchedParts(rule, request)) {
      const edits = forEach(part, taken, ofCaller)
      if (edits !== undefined) yield edits
    }
  }
  yield* created(exactPolicy(request, 'DENY', mesh))
  if (rule !== undefined) yield dropped(rule)
}

function* created(policy: Policy | undefined): Generator<Edits> {
  if (policy !== undefined) yield [{ do: 'create', policy }]
}

export interface Standing {
  readonly decision: Decision
  readonly near: readonly NearMiss[]
}

/** Changes that might bring the other decision, or at least take away what determined this one. */
export function* candidates(
  { decision, near }: Standing,
  request: Request,
  mesh: Mesh,
): Generator<Edits> {
  const { allow, rule } = decision
  if (allow) return yield* denying(rule, request, mesh)
  // no policy lets plaintext in where a PeerAuthentication wants an identity
  if (decision.before !== undefined) return
  if (rule !== undefined) return yield* sparing(rule, request)
  for (const it of near) yield* wideningOf(it, request)
  yield* created(exactPolicy(request, 'ALLOW', mesh))
}

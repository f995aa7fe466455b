// The long explanation of a denial, made on demand: what came near, and the smallest change that would
// allow it, verified by applying it.

import type { PolicySet } from './compile.ts'
import { type Alternatives, type CompiledRule, compile, type Field, holds } from './compile.ts'
import { type Decision, decide, scopeFor } from './decide.ts'
import { patternOf } from './pattern.ts'
import type { Policy } from './read.ts'
import { namespaceOf, type Request } from './request.ts'
import { type RuleDocument, ruleDocument } from './schema.ts'

export interface Explanation {
  /** one sentence: what determined the decision */
  readonly reason: string
  /** the smallest policy line that would allow it; empty for an allowed request or a matching DENY */
  readonly remedy: string
}

interface Change {
  readonly policy: Policy
  readonly rules: readonly RuleDocument[]
  readonly text: string
}

// Paths are the caller's to choose, and 16 KiB long if it likes; explanations are kept and sent on.
const longestPath = 512

function shortened(path: string): string {
  return path.length > longestPath ? `${path.slice(0, longestPath)}…` : path
}

function describe(request: Request): string {
  const who = request.source ?? 'a peer without identity'
  const what =
    request.http === undefined
      ? `TCP port ${request.destination.port}`
      : `${request.http.method} ${shortened(request.http.path)}`
  return `${who} → ${request.destination.id} ${what}`
}

/** The one value that the request has for a field. */
function attribute(field: Field, request: Request): string | undefined {
  switch (field) {
    case 'principals':
      return request.source?.slice('spiffe://'.length)
    case 'methods':
      return request.http?.method
    case 'paths':
      return request.http?.path
    case 'ports':
      return String(request.destination.port)
  }
}

/** The attribute as a policy writes it; undefined when a policy would read it as a wider pattern. */
function ownValue(field: Field, request: Request): string | undefined {
  const value = attribute(field, request)
  if (field === 'paths' && value !== undefined && value.length > longestPath) return undefined
  return value !== undefined && patternOf(value).kind === 'exact' ? value : undefined
}

/** Fields of the alternative that fails least. */
function failing(alternatives: Alternatives, request: Request): { at: number; fields: Field[] } {
  const all = alternatives.map((tests, at) => ({
    at,
    fields: tests.filter((test) => !holds(test, request, 'ALLOW')).map((test) => test.field),
  }))
  return all.sort((a, b) => a.fields.length - b.fields.length)[0] ?? { at: 0, fields: [] }
}

function widen(
  rule: RuleDocument,
  side: 'from' | 'to',
  at: number,
  field: Field,
  value: string,
): RuleDocument {
  const add = (list: readonly string[] | undefined) => [...(list ?? []), value]
  if (side === 'from') {
    const from = rule.from?.map((it, i) =>
      i === at ? { source: { principals: add(it.source.principals) } } : it,
    )
    return { ...rule, from }
  }
  const to = rule.to?.map((it, i) => {
    if (i !== at || field === 'principals') return it
    return { operation: { ...it.operation, [field]: add(it.operation[field]) } }
  })
  return { ...rule, to }
}

/** A change of one list in one rule, when one failing field is all that stands in the way. */
function oneValue(rule: CompiledRule, request: Request): Change | undefined {
  const from = failing(rule.from, request)
  const to = failing(rule.to, request)
  const [field, ...others] = [...from.fields, ...to.fields]
  if (field === undefined || others.length > 0) return undefined
  const value = ownValue(field, request)
  const document = rule.policy.rules[rule.index]
  if (value === undefined || document === undefined) return undefined
  const side = from.fields.length > 0 ? 'from' : 'to'
  const at = side === 'from' ? from.at : to.at
  const place = `spec.rules[${rule.index}].${side}[${at}].${side === 'from' ? 'source' : 'operation'}.${field}`
  const { policy } = rule
  return {
    policy,
    rules: policy.rules.map((it, i) => (i === rule.index ? widen(it, side, at, field, value) : it)),
    text: `${policy.file}:${policy.lines[rule.index]} ${policy.namespace}/${policy.name}: add ${JSON.stringify(value)} to ${place}`,
  }
}

function newRule(request: Request): Change | undefined {
  const principal = ownValue('principals', request)
  const method = ownValue('methods', request)
  const path = ownValue('paths', request)
  if (principal === undefined) return undefined
  if (request.http !== undefined && (method === undefined || path === undefined)) return undefined
  const operation =
    method === undefined || path === undefined
      ? { ports: [String(request.destination.port)] }
      : { methods: [method], paths: [path] }
  const rule: RuleDocument = {
    from: [{ source: { principals: [principal] } }],
    to: [{ operation }],
  }
  const namespace = namespaceOf(request.destination.id)
  return {
    policy: { namespace, name: 'new', action: 'ALLOW', rules: [], file: '', lines: [] },
    rules: [rule],
    text: `an ALLOW policy in namespace ${namespace} with the rule ${JSON.stringify(rule)}`,
  }
}

/** Whether a policy file may say so, and the request is allowed then. */
function flips(set: PolicySet, change: Change, request: Request): boolean {
  if (!change.rules.every((rule) => ruleDocument.safeParse(rule).success)) return false
  const rest = set.policies.filter((policy) => policy !== change.policy)
  const policy = { ...change.policy, rules: change.rules, lines: change.rules.map(() => 1) }
  const changed = compile([...rest, policy], { rootNamespace: set.rootNamespace })
  return decide(changed, request).allow
}

/** Explains `decision`, which `decide(set, request)` gave. */
export function explainDecision(set: PolicySet, request: Request, decision: Decision): Explanation {
  const { rule } = decision
  if (rule !== undefined) {
    const verb = decision.allow ? 'allowed' : 'denied'
    const { policy, index } = rule
    const reason = `${describe(request)}: ${verb} by ${policy.action} policy ${policy.namespace}/${policy.name}, rule ${index} (${policy.file}:${policy.lines[index]})`
    return { reason, remedy: '' }
  }
  const { allow } = scopeFor(set, request)
  const candidates = [...allow.map((near) => oneValue(near, request)), newRule(request)]
  const remedy = candidates.find((change) => change !== undefined && flips(set, change, request))
  const reason =
    allow.length === 0
      ? `${describe(request)}: denied, no ALLOW policy speaks of this destination`
      : `${describe(request)}: denied, none of ${allow.length} ALLOW rules matches`
  return { reason, remedy: remedy?.text ?? '' }
}

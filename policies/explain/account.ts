// What a rule asks and what the request has for it, field by field.
import type { Request } from '../attributes/request.ts'
import { fieldsOf } from '../language/rule-fields.ts'
import { type CompiledRule, testsOfRule } from '../rules/rule.ts'
import { wantedOf } from './near.ts'
import { shortened, shownValue } from './values.ts'

export interface Account {
  /** from the rule: `to[0].operation.paths` */
  readonly place: string
  /** as it was written: `notPaths`, `request.headers[x-role]` */
  readonly name: string
  readonly wanted: readonly string[]
  /** what the request has; undefined when it has none */
  readonly value: string | undefined
  readonly holds: boolean
}

/** All fields in the order of from, to, when, exceptFor; then the condition. */
export function accountOf(rule: CompiledRule, request: Request): readonly Account[] {
  const { from = [], to = [], when, exceptFor, condition } = testsOfRule(rule)
  const tests = new Map([...from, ...to, when, ...exceptFor].flat().map((it) => [it.place, it]))
  const fields = fieldsOf(rule.document).flatMap((field): Account[] => {
    const test = tests.get(field.place)
    if (test === undefined) return []
    const { place, name } = field
    const value = shownValue(field, request, rule)
    return [{ place, name, wanted: wantedOf(field), value, holds: test.holds(request) }]
  })
  if (condition === undefined) return fields
  const answer = condition(request)
  const text = shortened(rule.document.condition ?? '')
  const last = { place: 'condition', name: 'condition', wanted: [text], value: String(answer) }
  return [...fields, { ...last, holds: answer === true }]
}

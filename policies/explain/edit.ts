// Changes of policies, each one step that an operator can do: values in a list, a field, a rule, a policy.
import { isDeepStrictEqual } from 'node:util'
import { fieldName, type Path } from '../../documents/yaml.ts'
import { type RuleDocument, ruleDocument } from '../language/authorization.ts'
import { type Labels, type Policy, policyName } from '../language/policy.ts'

/**
 * add: values more in the list at `path`, which is made when there is none.
 * take: values of that list away, others stay.
 * drop: what stands at `path`; without a path the whole document.
 * create: a policy more.
 */
export type Edit =
  | {
      readonly do: 'add' | 'take'
      readonly policy: Policy
      readonly path: Path
      readonly values: readonly unknown[]
    }
  | { readonly do: 'drop'; readonly policy: Policy; readonly path: Path }
  | { readonly do: 'create'; readonly policy: Policy }

/** Policies after edits that belong together. */
export interface Change {
  readonly policies: readonly Policy[]
  readonly edits: readonly Edit[]
}

type Update = (value: unknown) => unknown

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A copy in which `update` has been applied at `path`; undefined there takes it out. */
function updated(value: unknown, [step, ...rest]: Path, update: Update): unknown {
  if (step === undefined) return update(value)
  if (typeof step === 'number') {
    const list: readonly unknown[] = Array.isArray(value) ? value : []
    const inner = updated(list[step], rest, update)
    return list.flatMap((it, i) => (i === step ? (inner === undefined ? [] : [inner]) : [it]))
  }
  const record = isRecord(value) ? value : {}
  const { [step]: known, ...others } = record
  const inner = updated(known, rest, update)
  return inner === undefined ? others : { ...record, [step]: inner }
}

function updateOf(edit: Extract<Edit, { do: 'add' | 'take' }>): Update {
  return (value) => {
    const list: readonly unknown[] = Array.isArray(value) ? value : []
    if (edit.do === 'add') return [...list, ...edit.values]
    return list.filter((it) => !edit.values.some((taken) => isDeepStrictEqual(it, taken)))
  }
}

/** The policy after a step inside of it; undefined when it could not be read any more. */
function edited(edit: Exclude<Edit, { do: 'create' }>): Policy | undefined {
  const { policy, path } = edit
  const [, , index, ...inner] = path
  const document = policy.rules[Number(index)]
  if (document === undefined) return undefined
  if (inner.length === 0) {
    const without = <T>(list: readonly T[]) => list.filter((_, i) => i !== index)
    return { ...policy, rules: without(policy.rules), lines: without(policy.lines) }
  }
  const update: Update = edit.do === 'drop' ? () => undefined : updateOf(edit)
  const parsed = ruleDocument.safeParse(updated(document, inner, update))
  if (!parsed.success) return undefined
  const rules = policy.rules.map((it, i): RuleDocument => (i === index ? parsed.data : it))
  return { ...policy, rules }
}

/** Applies one edit after the other; undefined when one of them is none that the reader would take. */
export function apply(policies: readonly Policy[], edits: readonly Edit[]): Change | undefined {
  let now = policies
  // a policy that was edited before stands for the one that an edit names
  const latest = new Map<Policy, Policy>()
  for (const edit of edits) {
    if (edit.do === 'create') {
      now = [...now, edit.policy]
      continue
    }
    const current = latest.get(edit.policy) ?? edit.policy
    const isWhole = edit.do === 'drop' && edit.path.length === 0
    const made = isWhole ? undefined : edited({ ...edit, policy: current })
    if (made === undefined && !isWhole) return undefined
    now = now.flatMap((it) => (it === current ? (made === undefined ? [] : [made]) : [it]))
    if (made !== undefined) latest.set(edit.policy, made)
  }
  return { policies: now, edits }
}

/** FILE:LINE of a policy, or of one of its rules. */
export function placeOf({ file, lines, line }: Policy, index?: number): string {
  return `${file}:${index === undefined ? line : (lines[index] ?? line)}`
}

const listed = (values: readonly unknown[]) => values.map((it) => JSON.stringify(it)).join(', ')

function whichOf(labels: Labels | undefined): string {
  if (labels === undefined) return ''
  const all = Object.entries(labels).map(([name, value]) => `${name}=${value}`)
  return ` for ${all.join(', ')}`
}

/** One line for people. */
export function editText(edit: Edit): string {
  const { policy } = edit
  if (edit.do === 'create') {
    const { action, namespace, selector, rules } = policy
    const article = action === 'ALLOW' ? 'an' : 'a'
    return `${article} ${action} policy in namespace ${namespace}${whichOf(selector)} with the rule ${JSON.stringify(rules[0])}`
  }
  const [, , index] = edit.path
  const at = `${placeOf(policy, typeof index === 'number' ? index : undefined)} ${policyName(policy)}:`
  const field = fieldName(edit.path)
  switch (edit.do) {
    case 'add':
      return `${at} add ${listed(edit.values)} to ${field}`
    case 'take':
      return `${at} take ${listed(edit.values)} out of ${field}`
    case 'drop':
      return field === '' ? `${at} delete the policy` : `${at} without ${field}`
  }
}

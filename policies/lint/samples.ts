// Requests that a rule matches: found by trying, and each of them confirmed by the engine.
import { fieldsOf, identityAttributes, type RuleField } from '../language/rule-fields.ts'
import type { FieldTest } from '../rules/field.ts'
import { type CompiledRule, ruleMatches, testsOfRule } from '../rules/rule.ts'
import { type Around, callersFor, choicesFor, strangers } from './choices.ts'
import { type Change, type Draft, requestOf } from './draft.ts'

interface Asked {
  readonly field: RuleField
  readonly test: FieldTest
}

// alternatives of one list that are looked at, and changes that are tried for one field
const mostAlternatives = 8
const mostChanges = 48
const rounds = 3

const asIs: Change = (draft) => draft

function askedBy(rule: CompiledRule): ReadonlyMap<string, Asked> {
  const { from = [], to = [], when } = testsOfRule(rule)
  const tests = new Map([...from, ...to, when].flat().map((test) => [test.place, test]))
  return new Map(
    fieldsOf(rule.document).flatMap((field): [string, Asked][] => {
      const test = tests.get(field.place)
      return test === undefined || field.part === 'exceptFor'
        ? []
        : [[field.place, { field, test }]]
    }),
  )
}

/** Each choice of one source and one operation, with the conditions. */
function* alternativesOf(rule: CompiledRule): Generator<readonly Asked[]> {
  const all = [...askedBy(rule).values()]
  const { from, to } = rule.document
  const of = (part: 'from' | 'to', i: number) =>
    all.filter(({ field }) => field.part === part && field.alternative === i)
  const when = all.filter(({ field }) => field.part === 'when')
  for (let i = 0; i < Math.min(from?.length ?? 1, mostAlternatives); i++) {
    for (let j = 0; j < Math.min(to?.length ?? 1, mostAlternatives); j++) {
      yield [...of('from', i), ...of('to', j), ...when]
    }
  }
}

const isIdentity = ({ field }: Asked) => identityAttributes.has(field.attribute)

/** Changes for a field; those that speak of the caller are looked for together. */
function changesFor(it: Asked, asked: readonly Asked[], around: Around): readonly Change[] {
  const single = choicesFor(it.field, around)
  const all = isIdentity(it)
    ? [
        ...single,
        ...callersFor(
          asked.filter(isIdentity).map(({ field }) => field),
          around,
        ),
        ...strangers(around.mesh).map(
          (principal): Change =>
            (draft) => ({ ...draft, principal }),
        ),
      ]
    : single
  return [asIs, ...all.slice(0, mostChanges)]
}

function firstThat(
  changes: readonly Change[],
  holds: (draft: Draft) => boolean,
  { draft, pin }: { readonly draft: Draft; readonly pin: Change },
): Draft | undefined {
  for (const change of changes) {
    const changed = pin(change(draft))
    if (holds(changed)) return changed
  }
  return undefined
}

/** Makes one field after the other hold; undefined when one of them does not come to hold. */
function settle(
  asked: readonly Asked[],
  rule: CompiledRule,
  start: { readonly draft: Draft; readonly pin: Change },
): Draft | undefined {
  const { mesh, policy } = rule
  const around: Around = { mesh, namespace: policy.namespace }
  let { draft } = start
  for (const it of asked) {
    const beside = isIdentity(it) ? asked.filter(isIdentity) : [it]
    const holds = (changed: Draft) => {
      const request = requestOf(changed, mesh)
      return request !== undefined && beside.every(({ test }) => test.holds(request))
    }
    const found = firstThat(changesFor(it, asked, around), holds, { ...start, draft })
    if (found === undefined) return undefined
    draft = found
  }
  return draft
}

export interface SampleOptions {
  /** what may not be changed: applied after every change */
  readonly pin?: Change
}

export function matchesDraft(rule: CompiledRule, draft: Draft): boolean {
  const request = requestOf(draft, rule.mesh)
  return request !== undefined && ruleMatches(rule, request)
}

/** Callers besides, for rules that except somebody. */
const elsewhere = (rule: CompiledRule): readonly Change[] => [
  asIs,
  ...strangers(rule.mesh).map(
    (principal): Change =>
      (draft) => ({ ...draft, principal }),
  ),
  (draft) => ({ ...draft, headers: [] }),
]

/** Requests like `base` that the rule matches, one for each way through it that was found. */
export function* samplesOf(
  rule: CompiledRule,
  base: Draft,
  { pin = asIs }: SampleOptions = {},
): Generator<Draft> {
  for (const all of alternativesOf(rule)) {
    // an ALLOW that asks about HTTP has no requests on TCP; others leave out what it asks (§4.9)
    const asked = base.isTcp ? all.filter(({ test }) => !test.asksHttp) : all
    let draft: Draft | undefined = pin(base)
    for (let round = 0; round < rounds && draft !== undefined; round++) {
      draft = settle(asked, rule, { draft, pin })
      const found: Draft | undefined = draft
      if (found === undefined) break
      const fitting = firstThat(elsewhere(rule), (it) => matchesDraft(rule, it), {
        draft: found,
        pin,
      })
      if (fitting === undefined) continue
      yield fitting
      break
    }
  }
}

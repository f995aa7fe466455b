// Words of a rule that no request can match, which the reader takes because they are well-formed.
import { type Attribute, fieldsOf, type RuleField } from '../language/rule-fields.ts'
import { patternOf } from '../rules/pattern.ts'
import { type CompiledRule, compileRule, ruleMatches } from '../rules/rule.ts'
import { choicesForText } from './choices.ts'
import { type Draft, requestOf } from './draft.ts'
import { type Ground, rulesBy, strangerAt, whomOf } from './ground.ts'
import { type LintRule, quoted, type Suspicion, spotIn } from './rule.ts'

/** Why a word of an attribute may match nothing: looked at only when nothing was found that it matches. */
const reasons: ReadonlyMap<Attribute, string> = new Map([
  ['paths', 'paths are compared after normalisation, and none looks like this then'],
  ['target', 'paths are compared after normalisation, and none looks like this then'],
  ['hosts', 'hosts are compared without final dot, and have names and ports alone'],
  ['principals', 'no SPIFFE ID looks like this'],
  ['trustDomains', 'trust domains have lower-case letters, digits, dots, hyphens and underscores'],
  ['header', 'values are compared without the spaces around them'],
])

/** A rule that asks for one word only. */
function alone({ policy, mesh }: CompiledRule, { path, name, attribute }: RuleField, text: string) {
  const [list] = path
  const only =
    list === 'when'
      ? { when: [{ key: name, values: [text] }] }
      : attribute === 'principals' || attribute === 'trustDomains'
        ? { from: [{ source: { [attribute]: [text] } }] }
        : { to: [{ operation: { [attribute]: [text] } }] }
  return compileRule({ ...policy, rules: [only] }, 0, mesh)
}

const plainMethods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS']

/** The request that the author had in mind. */
function meant(field: RuleField, text: string, base: Draft, rule: CompiledRule): readonly Draft[] {
  const around = { mesh: rule.mesh, namespace: rule.policy.namespace }
  return choicesForText(field, text, around).map((change) => change(base))
}

function isLowerMethod({ attribute }: RuleField, text: string): boolean {
  const pattern = patternOf(text)
  return (
    attribute === 'methods' &&
    pattern.kind === 'exact' &&
    plainMethods.includes(text.toUpperCase()) &&
    !plainMethods.includes(text)
  )
}

function* neverMatching(ground: Ground, action: 'ALLOW' | 'DENY'): Generator<Suspicion> {
  for (const rule of rulesBy(ground, action)) {
    for (const field of fieldsOf(rule.document)) {
      if (field.isNegated || field.part === 'exceptFor') continue
      for (const [i, text] of field.texts.entries()) {
        const found = suspicionOf(ground, { rule, field, text })
        if (found !== undefined) yield { at: spotIn(rule, ...field.path, i), ...found }
      }
    }
  }
}

function suspicionOf(
  ground: Ground,
  {
    rule,
    field,
    text,
  }: { readonly rule: CompiledRule; readonly field: RuleField; readonly text: string },
): Omit<Suspicion, 'at'> | undefined {
  const base = strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)
  const single = alone(rule, field, text)
  const misses = (draft: Draft) => {
    const request = requestOf(draft, ground.mesh)
    return request === undefined || !ruleMatches(single, request)
  }
  if (isLowerMethod(field, text)) {
    const method = text.toUpperCase()
    return {
      says: `${quoted(text)} is no ${method}: methods are compared as sent`,
      mend: `write ${quoted(method)}`,
      witnesses: () => [{ ...base, method }],
      shows: (outcome) => outcome.decision !== 'reject' && !ruleMatches(single, outcome.request),
    }
  }
  const reason = reasons.get(field.attribute)
  if (reason === undefined) return undefined
  const drafts = meant(field, text, base, rule)
  if (drafts.length === 0 || !drafts.every(misses)) return undefined
  return {
    says: `${quoted(text)} matches nothing: ${reason}`,
    witnesses: () => drafts,
    shows: (outcome) => outcome.decision === 'reject' || !ruleMatches(single, outcome.request),
  }
}

export const valueRules: readonly LintRule[] = [
  {
    name: 'deny-never-matches',
    severity: 'error',
    says: 'a word of a DENY rule that no request can match denies nothing',
    mend: 'write the word as requests have it',
    suspect: (ground) => neverMatching(ground, 'DENY'),
  },
  {
    name: 'allow-never-matches',
    severity: 'warning',
    says: 'a word of an ALLOW rule that no request can match allows nothing',
    mend: 'write the word as requests have it',
    suspect: (ground) => neverMatching(ground, 'ALLOW'),
  },
]

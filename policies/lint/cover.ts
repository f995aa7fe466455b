// Whether one rule matches whatever another does: read off how they are written. Sound, not complete: a yes
// is a yes, a no may be an "I cannot tell".
import { isDeepStrictEqual } from 'node:util'
import { parseBlock } from '../attributes/address.ts'
import type { RuleDocument } from '../language/authorization.ts'
import { type Attribute, fieldsOf, type RuleField } from '../language/rule-fields.ts'
import { patternOf } from '../rules/pattern.ts'
import { isTemplate, literalPrefix, templateExpression } from '../rules/template.ts'

/** Whether every text that `narrow` matches is one that `wide` matches. */
export function patternCovers(wide: string, narrow: string): boolean {
  if (wide === narrow) return true
  const [all, some] = [patternOf(wide), patternOf(narrow)]
  if (all.kind === 'present') return some.kind !== 'prefix' || some.text !== ''
  if (some.kind === 'present') return false
  switch (all.kind) {
    case 'exact':
      return false
    case 'prefix':
      return some.kind !== 'suffix' && some.text.startsWith(all.text)
    case 'suffix':
      return some.kind !== 'prefix' && some.text.endsWith(all.text)
  }
}

/** Of two templates only the same text is known to cover. */
function pathCovers(wide: string, narrow: string): boolean {
  if (wide === narrow) return true
  if (isTemplate(wide)) {
    const isExact = !isTemplate(narrow) && patternOf(narrow).kind === 'exact'
    return isExact && templateExpression(wide, '[^/]').test(narrow)
  }
  if (!isTemplate(narrow)) return patternCovers(wide, narrow)
  const pattern = patternOf(wide)
  if (pattern.kind === 'prefix') return literalPrefix(narrow).startsWith(pattern.text)
  return pattern.kind === 'present'
}

function blockCovers(wide: string, narrow: string): boolean {
  const [all, some] = [parseBlock(wide), parseBlock(narrow)]
  if (all === undefined || some === undefined) return false
  if (all.bits !== some.bits || all.prefix > some.prefix) return false
  const rest = BigInt(all.bits - all.prefix)
  return all.value >> rest === some.value >> rest
}

const isSame = (wide: string, narrow: string) => wide === narrow
const ofHosts = (wide: string, narrow: string) =>
  patternCovers(wide.toLowerCase(), narrow.toLowerCase()) &&
  wide.includes(':') === narrow.includes(':')

const covers: Readonly<Record<Attribute, (wide: string, narrow: string) => boolean>> = {
  principals: patternCovers,
  // a star inside is a wildcard there
  namespaces: isSame,
  serviceAccounts: isSame,
  trustDomains: patternCovers,
  ipBlocks: blockCovers,
  remoteIpBlocks: blockCovers,
  requestPrincipals: (wide, narrow) => wide === narrow || (wide === '*' && narrow.includes('/')),
  hosts: ofHosts,
  ports: isSame,
  methods: patternCovers,
  paths: pathCovers,
  target: patternCovers,
  header: patternCovers,
  claim: patternCovers,
  destinationIp: blockCovers,
  sni: patternCovers,
  metadata: () => false,
}

const isAbout = (one: RuleField, other: RuleField) =>
  one.attribute === other.attribute &&
  one.isNegated === other.isNegated &&
  isDeepStrictEqual(one.names, other.names)

const each = (texts: readonly string[], by: readonly string[], attribute: Attribute) =>
  texts.every((text) => by.some((wide) => covers[attribute](wide, text)))

/** Whether a request for which `narrow` holds is one for which `wide` does. */
function fieldImplies(narrow: RuleField, wide: RuleField): boolean {
  if (!isAbout(narrow, wide)) return false
  return wide.isNegated
    ? each(wide.texts, narrow.texts, wide.attribute)
    : each(narrow.texts, wide.texts, wide.attribute)
}

type Fields = readonly RuleField[]

const allImply = (narrow: Fields, wide: Fields) =>
  wide.every((field) => narrow.some((it) => fieldImplies(it, field)))

interface Parts {
  readonly from: readonly Fields[]
  readonly to: readonly Fields[]
  readonly when: Fields
}

function partsOf(rule: RuleDocument): Parts {
  const fields = fieldsOf(rule)
  const of = (part: 'from' | 'to', list: readonly unknown[] | undefined) =>
    (list ?? []).map((_, i) => fields.filter((it) => it.part === part && it.alternative === i))
  return {
    from: of('from', rule.from),
    to: of('to', rule.to),
    when: fields.filter(({ part }) => part === 'when'),
  }
}

function alternativesCovered(narrow: readonly Fields[], wide: readonly Fields[], when: Fields) {
  if (wide.length === 0) return true
  const all = narrow.length === 0 ? [[]] : narrow
  return all.every((some) => wide.some((it) => allImply([...some, ...when], it)))
}

/** Whether a rule matches every request that another of the same setting matches. */
export function ruleCovers(wide: RuleDocument, narrow: RuleDocument): boolean {
  if (wide.condition !== undefined && wide.condition !== narrow.condition) return false
  const excepted = (wide.exceptFor ?? []).every((it) =>
    (narrow.exceptFor ?? []).some((other) => isDeepStrictEqual(it, other)),
  )
  if (!excepted) return false
  const [all, some] = [partsOf(wide), partsOf(narrow)]
  return (
    alternativesCovered(some.from, all.from, some.when) &&
    alternativesCovered(some.to, all.to, some.when) &&
    // a condition of the wider rule may be what every source or operation of the narrower says
    all.when.every(
      (field) =>
        some.when.some((it) => fieldImplies(it, field)) ||
        everyHas(some.from, field) ||
        everyHas(some.to, field),
    )
  )
}

function everyHas(alternatives: readonly Fields[], field: RuleField): boolean {
  return (
    alternatives.length > 0 &&
    alternatives.every((fields) => fields.some((it) => fieldImplies(it, field)))
  )
}

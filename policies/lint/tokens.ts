// Rules about tokens, and whether anybody verifies such tokens (authorization.md §4.7, §4.13).

import type { RequestAuthentication } from '../language/read.ts'
import { type Attribute, fieldsOf, type RuleField } from '../language/rule-fields.ts'
import { patternOf } from '../rules/pattern.ts'
import { type CompiledRule, ruleMatches } from '../rules/rule.ts'
import { isInScope } from '../scope.ts'
import { type Location, locationsOf } from '../tokens/find.ts'
import { tokenOf, withHeader } from './choices.ts'
import type { Change, Draft } from './draft.ts'
import { destinationFor, type Ground, rulesBy, strangerAt, whomOf } from './ground.ts'
import { type LintRule, quoted, type Suspicion, spotIn } from './rule.ts'
import { samplesOf } from './samples.ts'

const ofTokens: ReadonlySet<Attribute> = new Set(['requestPrincipals', 'claim'])

/** Those that speak of a workload that the rule's policy speaks of as well. */
function inScope({ documents, mesh }: Ground, { policy }: CompiledRule): RequestAuthentication[] {
  return documents.authentications.filter((it) => {
    const destination = destinationFor(whomOf(mesh, policy, { ...it, targets: undefined }))
    return isInScope(it, destination, mesh)
  })
}

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** In the form of a token, signed by nobody. */
function tokenText(claims: object): string {
  const year2100 = 4_102_444_800
  return `${part({ alg: 'RS256' })}.${part({ ...claims, exp: year2100 })}.${part({})}`
}

/** The token where it is looked for, instead of claims that somebody has verified. */
const carrying =
  (location: Location, token: string): Change =>
  (draft) => {
    const bare = { ...draft, claims: undefined }
    switch (location.in) {
      case 'header':
        return withHeader(location.name, `${location.prefix}${token}`)(bare)
      case 'query':
        return { ...bare, path: `${draft.path}?${encodeURIComponent(location.name)}=${token}` }
      case 'cookie':
        return withHeader('cookie', `${location.name}=${token}`)(bare)
    }
  }

const bearer: Location = { in: 'header', name: 'authorization', prefix: 'Bearer ' }

function* tokenFields(
  ground: Ground,
): Generator<{ rule: CompiledRule; field: RuleField; trusted: RequestAuthentication[] }> {
  for (const rule of rulesBy(ground, 'ALLOW', 'DENY')) {
    const fields = fieldsOf(rule.document).filter(
      ({ attribute, isNegated, part: of }) =>
        ofTokens.has(attribute) && !isNegated && of !== 'exceptFor',
    )
    if (fields.length === 0) continue
    const trusted = inScope(ground, rule)
    for (const field of fields) yield { rule, field, trusted }
  }
}

function* unverified(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, trusted } of tokenFields(ground)) {
    if (trusted.some(({ rules }) => rules.length > 0)) continue
    const base = strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)
    yield {
      at: spotIn(rule, ...field.path),
      says: `no RequestAuthentication speaks of these workloads, so no token is looked at and ${field.name} never matches`,
      *witnesses() {
        for (const draft of samplesOf(rule, base)) {
          if (draft.claims !== undefined) yield carrying(bearer, tokenText(draft.claims))(draft)
        }
      },
      shows: (outcome) =>
        outcome.decision !== 'reject' &&
        outcome.request.claims === undefined &&
        !ruleMatches(rule, outcome.request),
    }
  }
}

/** The issuer that a word names; undefined when it leaves it open. */
function issuerOf(text: string): string | undefined {
  const slash = text.lastIndexOf('/')
  const issuer = slash < 0 ? text : text.slice(0, slash)
  return patternOf(issuer).kind === 'exact' ? issuer : undefined
}

const isUnknownIssuer = (reason: string) => reason.endsWith('nobody knows its issuer')

function* unknownIssuers(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, trusted } of tokenFields(ground)) {
    const rules = trusted.flatMap((it) => it.rules)
    const issuers = rules.map(({ issuer }) => issuer ?? '')
    if (field.attribute !== 'requestPrincipals' || rules.length === 0 || issuers.includes(''))
      continue
    const [first] = rules
    const location = (first === undefined ? undefined : locationsOf(first)[0]) ?? bearer
    const scopes = trusted.map((it) => ({ ...it, targets: undefined }))
    const base = strangerAt(whomOf(ground.mesh, rule.policy, ...scopes), ground.mesh)
    for (const [i, text] of field.texts.entries()) {
      const issuer = issuerOf(text)
      if (issuer === undefined || issuers.includes(issuer)) continue
      const token = tokenText(tokenOf(text))
      yield {
        at: spotIn(rule, ...field.path, i),
        says: `no RequestAuthentication accepts tokens of ${quoted(issuer)}; accepted are ${[...new Set(issuers)].map(quoted).join(', ')}`,
        witnesses: () => [...samplesOf(rule, base), base].map(carrying(location, token)),
        shows: (outcome) =>
          outcome.decision === 'reject' && isUnknownIssuer(outcome.rejection.reason),
      }
    }
  }
}

function* withoutSubject(ground: Ground): Generator<Suspicion> {
  for (const { rule, field } of tokenFields(ground)) {
    if (field.attribute !== 'requestPrincipals') continue
    for (const [i, text] of field.texts.entries()) {
      if (text.includes('/') || patternOf(text).kind !== 'exact') continue
      const base = strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)
      const draft: Draft = { ...base, claims: { iss: text, sub: 'any' } }
      yield {
        at: spotIn(rule, ...field.path, i),
        says: `${quoted(text)} means a token of that issuer without subject`,
        mend: `write ${quoted(`${text}/*`)} for any subject`,
        witnesses: () => [...samplesOf(rule, base)].map((it) => ({ ...it, claims: draft.claims })),
        shows: (outcome) => outcome.decision !== 'reject' && !ruleMatches(rule, outcome.request),
      }
    }
  }
}

export const tokenRules: readonly LintRule[] = [
  {
    name: 'token-not-verified',
    severity: 'error',
    says: 'a rule asks about tokens where no RequestAuthentication has them verified',
    mend: 'write a RequestAuthentication for these workloads',
    suspect: unverified,
  },
  {
    name: 'issuer-unknown',
    severity: 'error',
    says: 'a rule names an issuer whose tokens are refused',
    mend: 'add the issuer to a RequestAuthentication, or correct its name',
    suspect: unknownIssuers,
  },
  {
    name: 'issuer-without-subject',
    severity: 'error',
    says: 'a word of requestPrincipals without slash means tokens without subject, which hardly anybody issues',
    mend: 'write ISSUER/SUBJECT, or ISSUER/* for any subject',
    suspect: withoutSubject,
  },
]

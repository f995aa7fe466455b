// Headers and addresses that somebody else may have written than the policy's author thinks.
import { isOurs } from '../attributes/request.ts'
import { conditionOf } from '../language/conditions.ts'
import { fieldsOf, type RuleField } from '../language/rule-fields.ts'
import { type CompiledRule, ruleMatches } from '../rules/rule.ts'
import { choicesForText, withHeader, withoutHeader } from './choices.ts'
import type { Change, Draft } from './draft.ts'
import { type Ground, rulesBy, strangerAt, whomOf } from './ground.ts'
import { isAllowed, isAllowedBy, type LintRule, quoted, type Suspicion, spotIn } from './rule.ts'
import { samplesOf } from './samples.ts'

const baseOf = (ground: Ground, rule: CompiledRule) =>
  strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)

interface HeaderOfRule {
  readonly rule: CompiledRule
  readonly path: readonly (string | number)[]
  readonly name: string
  /** of a field; a condition in CEL has none */
  readonly field: RuleField | undefined
}

const inExpression = /request\.headers(?:\[\s*["']([^"']+)["']\s*\]|\.([A-Za-z_]\w*))/g

function* headersOfRules(ground: Ground): Generator<HeaderOfRule> {
  for (const rule of rulesBy(ground, 'ALLOW', 'DENY')) {
    for (const field of fieldsOf(rule.document)) {
      const [name = ''] = field.names
      if (field.attribute === 'header') yield { rule, path: field.path, name, field }
    }
    for (const [, quotedName, plain = ''] of rule.document.condition?.matchAll(inExpression) ??
      []) {
      yield { rule, path: ['condition'], name: quotedName ?? plain, field: undefined }
    }
  }
}

/** The header with a value that the rule asks for. */
function sent({ rule, name, field }: HeaderOfRule): Change {
  const around = { mesh: rule.mesh, namespace: rule.policy.namespace }
  const [text] = field?.texts ?? []
  const [change] =
    field === undefined || text === undefined ? [] : choicesForText(field, text, around)
  return change ?? withHeader(name, 'any')
}

function* unseen(ground: Ground): Generator<Suspicion> {
  for (const it of headersOfRules(ground)) {
    if (!isOurs(it.name)) continue
    const draft = sent(it)(baseOf(ground, it.rule))
    yield {
      at: spotIn(it.rule, ...it.path),
      says: `${it.name} is taken off before anything is decided: to the rule it is always absent`,
      witnesses: () => [draft],
      shows: (outcome) =>
        outcome.decision !== 'reject' && outcome.request.http?.headers.values(it.name).length === 0,
    }
  }
}

const forwarding =
  /^(?:x-forwarded-.+|forwarded|x-real-ip|x-client-ip|true-client-ip|cf-connecting-ip|x-original-.+|x-rewrite-.+)$/

function* byClients(ground: Ground): Generator<Suspicion> {
  for (const it of headersOfRules(ground)) {
    const { rule, field, name } = it
    if (rule.policy.action !== 'ALLOW' || field === undefined || field.isNegated) continue
    if (!forwarding.test(name)) continue
    yield {
      at: spotIn(rule, ...it.path),
      says: `whoever sends the request may write ${name} as it likes`,
      *witnesses() {
        for (const draft of samplesOf(rule, baseOf(ground, rule))) {
          const isNeeded = ground.ask(withoutHeader(name)(draft)).decision === 'deny'
          if (isNeeded) yield draft
        }
      },
      shows: isAllowedBy(rule),
    }
  }
}

const overriding = ['x-http-method-override', 'x-http-method', 'x-method-override']
const telling = ['DELETE', 'PUT', 'PATCH', 'POST']

/** What an ALLOW allows, with a header by which many programs take it for another method. */
function* overridden(ground: Ground, rule: CompiledRule, header: string): Generator<Draft> {
  for (const draft of samplesOf(rule, baseOf(ground, rule))) {
    const other = telling.find((method) => ground.ask({ ...draft, method }).decision === 'deny')
    if (other !== undefined) yield withHeader(header, other)(draft)
  }
}

/** Told once for each policy: one DENY ends it. */
function* methodOverrides(ground: Ground): Generator<Suspicion> {
  for (const policy of new Set(rulesBy(ground, 'ALLOW').map((rule) => rule.policy))) {
    const found = ground.rulesOf(policy).flatMap((rule) => {
      const field = fieldsOf(rule.document).find(({ attribute }) => attribute === 'methods')
      return field === undefined ? [] : [{ rule, field }]
    })
    const [first] = found
    if (first === undefined) continue
    yield {
      at: spotIn(first.rule, ...first.field.path),
      says: 'the method is compared as sent; a program that follows a header such as X-HTTP-Method-Override does something else',
      *witnesses() {
        for (const header of overriding) {
          for (const { rule } of found) yield* overridden(ground, rule, header)
        }
      },
      shows: isAllowed,
    }
  }
}

function* remoteFields(ground: Ground) {
  for (const rule of rulesBy(ground, 'ALLOW')) {
    for (const field of fieldsOf(rule.document)) {
      const { attribute, isNegated, part } = field
      if (attribute === 'remoteIpBlocks' && !isNegated && part !== 'exceptFor')
        yield { rule, field }
    }
  }
}

/** The remote address of a request as a header, from a peer that nobody knows. */
function forwarded(draft: Draft, { trustedHops }: Ground['mesh']): Draft | undefined {
  const { remoteIp } = draft
  if (remoteIp === undefined) return undefined
  const later = Array.from({ length: Math.max(trustedHops - 1, 0) }, () => '192.0.2.1')
  const value = [remoteIp, ...later].join(', ')
  return withHeader('x-forwarded-for', value)({ ...draft, remoteIp: undefined })
}

function* forwardedAddresses(ground: Ground, wanted: 'forged' | 'unseen'): Generator<Suspicion> {
  const { mesh } = ground
  const isBelieved = mesh.trustedHops > 0 && mesh.profile === 'istio'
  if (isBelieved !== (wanted === 'forged') || mesh.trustedProxies.length > 0) return
  for (const { rule, field } of remoteFields(ground)) {
    const texts = field.texts.map(quoted).join(', ')
    yield {
      at: spotIn(rule, ...field.path),
      says:
        wanted === 'forged'
          ? `${texts}: anybody who reaches the workload may write such an address into X-Forwarded-For`
          : `${texts}: X-Forwarded-For is believed of nobody, so the client's address is that of the peer`,
      *witnesses() {
        for (const draft of samplesOf(rule, baseOf(ground, rule))) {
          const made = forwarded(draft, mesh)
          if (made !== undefined) yield made
        }
      },
      shows: wanted === 'forged' ? isAllowedBy(rule) : isMissed(rule),
    }
  }
}

const isMissed =
  (rule: CompiledRule): Suspicion['shows'] =>
  (outcome) =>
    outcome.decision === 'deny' && !ruleMatches(rule, outcome.request)

/** Whether a key of `when` asks for what filters of Envoy leave behind. */
function* metadata(ground: Ground): Generator<Suspicion> {
  for (const rule of rulesBy(ground, 'ALLOW', 'DENY')) {
    for (const [i, { key }] of (rule.document.when ?? []).entries()) {
      if (conditionOf(key)?.kind !== 'metadata') continue
      const draft = baseOf(ground, rule)
      const isIstio = ground.mesh.profile === 'istio'
      const never = rule.policy.action === 'ALLOW' || isIstio
      yield {
        at: spotIn(rule, 'when', i, 'key'),
        says: `nobody here can answer ${key}: the condition ${never ? 'never' : 'always'} holds`,
        witnesses: () => [draft],
        shows: (outcome) =>
          outcome.decision !== 'reject' && (!never || !ruleMatches(rule, outcome.request)),
      }
    }
  }
}

export const headerRules: readonly LintRule[] = [
  {
    name: 'header-never-seen',
    severity: 'error',
    says: 'x-envoy-* and x-spiffe-peer-id are what a proxy says; from outside they are taken off before the decision',
    mend: 'ask for the identity itself (principals), or for a header of another name',
    suspect: unseen,
  },
  {
    name: 'header-of-anybody',
    severity: 'warning',
    says: 'an ALLOW rests on a header of the x-forwarded-* family, which clients may write themselves',
    mend: 'ask for what is verified: principals, requestPrincipals, ipBlocks; or remoteIpBlocks with trustedProxies in the mesh',
    suspect: byClients,
  },
  {
    name: 'method-override',
    severity: 'warning',
    says: 'a header can make a program do another method than the one that was allowed',
    mend: 'add a DENY for requests with the header: when key request.headers[x-http-method-override], values ["*"]; likewise x-http-method and x-method-override',
    suspect: methodOverrides,
  },
  {
    name: 'forwarded-address-of-anybody',
    severity: 'error',
    says: 'an ALLOW names addresses from X-Forwarded-For, which anybody may write (istio with trustedHops)',
    mend: 'add ipBlocks of your proxies to the same source',
    suspect: (ground) => forwardedAddresses(ground, 'forged'),
  },
  {
    name: 'forwarded-address-never-seen',
    severity: 'warning',
    says: 'an ALLOW names addresses of clients, but no X-Forwarded-For is believed',
    mend: 'set trustedHops in the mesh, in strict with the addresses of your proxies as trustedProxies; or write ipBlocks when the peer itself is meant',
    suspect: (ground) => forwardedAddresses(ground, 'unseen'),
  },
  {
    name: 'metadata-unknown',
    severity: 'error',
    says: 'a condition asks for metadata of Envoy filters, which nobody has here',
    mend: 'ask for what the filter looked at: a header, a claim, an identity',
    suspect: metadata,
  },
]

// Who gets in: rules that say only who may not, prefixes that take neighbours, namesakes of other trust
// domains, plaintext.

import type { PeerAuthentication } from '../language/read.ts'
import {
  type Attribute,
  fieldsOf,
  identityAttributes,
  type RuleField,
} from '../language/rule-fields.ts'
import { pathOf, principalOf } from '../rules/identity.ts'
import type { CompiledRule } from '../rules/rule.ts'
import { isInScope } from '../scope.ts'
import { strangers } from './choices.ts'
import type { Change, Draft } from './draft.ts'
import { completed } from './examples.ts'
import { destinationFor, type Ground, rulesBy, strangerAt, whomOf } from './ground.ts'
import {
  escapesFrom,
  isAllowed,
  isAllowedBy,
  type LintRule,
  letsThrough,
  openPrefix,
  openSuffix,
  quoted,
  type Suspicion,
  spotIn,
} from './rule.ts'
import { samplesOf } from './samples.ts'

const asCaller =
  (principal: string | undefined): Change =>
  (draft) => ({ ...draft, principal })

const ofCaller: ReadonlySet<Attribute> = new Set([
  ...identityAttributes,
  'ipBlocks',
  'remoteIpBlocks',
  'requestPrincipals',
  'claim',
])

const baseOf = (ground: Ground, rule: CompiledRule) =>
  strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)

/** For each source (or the conditions, where there is none) what it asks about the caller. */
function callerFields({ document }: CompiledRule): readonly (readonly RuleField[])[] {
  const fields = fieldsOf(document).filter(({ attribute }) => ofCaller.has(attribute))
  const when = fields.filter(({ part }) => part === 'when')
  if (document.from === undefined) return [when]
  return document.from.map((_, i) => [
    ...fields.filter(({ part, alternative }) => part === 'from' && alternative === i),
    ...when,
  ])
}

/** Callers that nobody has named. */
const nobodyNamed = ({ mesh }: Ground): readonly (string | undefined)[] => [
  undefined,
  ...strangers(mesh),
]

function* onlyNegative(ground: Ground): Generator<Suspicion> {
  for (const rule of rulesBy(ground, 'ALLOW')) {
    for (const fields of callerFields(rule)) {
      const [first] = fields
      if (first === undefined || fields.some(({ isNegated }) => !isNegated)) continue
      const base = baseOf(ground, rule)
      const says =
        ground.mesh.profile === 'istio'
          ? 'says only who may not come: anybody else may, without identity too'
          : 'says only who may not come: anybody else may, from any trust domain that is believed'
      yield {
        at: spotIn(rule, ...first.path),
        says: `${first.name} alone ${says}`,
        *witnesses() {
          for (const who of nobodyNamed(ground)) {
            yield* samplesOf(rule, base, { pin: asCaller(who) })
          }
        },
        shows: isAllowedBy(rule),
      }
    }
  }
}

function* principalTexts(ground: Ground) {
  for (const rule of rulesBy(ground, 'ALLOW', 'DENY')) {
    for (const field of fieldsOf(rule.document)) {
      if (field.attribute !== 'principals' || !letsThrough(rule, field)) continue
      for (const [index, text] of field.texts.entries()) yield { rule, field, text, index }
    }
  }
}

/** A pattern that takes neighbours, one of them, and what to write instead. */
function neighbourOf(text: string, ground: Ground) {
  const written = principalOf(text)
  const prefix = openPrefix(written)
  if (prefix !== undefined) {
    const neighbour = completed(`${prefix}-other`)
    const isWhole = pathOf(prefix).split('/').length > 4
    return { neighbour, mend: isWhole ? quoted(prefix) : quoted(`${prefix}/*`) }
  }
  const suffix = openSuffix(written)
  if (suffix === undefined) return undefined
  const { trustDomain } = ground.mesh
  const neighbour = suffix.includes('/')
    ? `${trustDomain}/other-${suffix}`
    : `${trustDomain}/ns/any/sa/other-${suffix}`
  return { neighbour, mend: quoted(`*/${suffix}`) }
}

function* openPrincipals(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, text, index } of principalTexts(ground)) {
    const found = neighbourOf(text, ground)
    if (found === undefined) continue
    const { neighbour, mend } = found
    const away = asCaller(`spiffe://${neighbour}`)
    const isDeny = rule.policy.action === 'DENY'
    yield {
      at: spotIn(rule, ...field.path, index),
      says: `${quoted(text)} also takes ${quoted(neighbour)}, which is somebody else`,
      mend: `write ${mend} instead`,
      witnesses: () =>
        isDeny
          ? escapesFrom(ground, rule, { at: asCaller(strangers(ground.mesh)[0]), away })
          : samplesOf(rule, baseOf(ground, rule), { pin: away }),
      shows: isDeny ? isAllowed : isAllowedBy(rule),
    }
  }
}

function* namesakes(ground: Ground): Generator<Suspicion> {
  if (ground.mesh.profile !== 'istio') return
  for (const rule of rulesBy(ground, 'ALLOW')) {
    for (const fields of callerFields(rule)) {
      const positive = fields.filter(({ isNegated }) => !isNegated)
      const field = positive.find(({ attribute }) =>
        ['namespaces', 'serviceAccounts'].includes(attribute),
      )
      const hasDomain = positive.some(({ attribute }) =>
        ['principals', 'trustDomains'].includes(attribute),
      )
      if (field === undefined || hasDomain) continue
      yield {
        at: spotIn(rule, ...field.path),
        says: `${field.name} takes namesakes of every trust domain that is believed`,
        *witnesses() {
          for (const draft of samplesOf(rule, baseOf(ground, rule))) {
            if (draft.principal === undefined) continue
            yield { ...draft, principal: `spiffe://other.test${pathOf(draft.principal)}` }
          }
        },
        shows: isAllowedBy(rule),
      }
    }
  }
}

type Mode = NonNullable<PeerAuthentication['spec']['mtls']>['mode']

const opening: ReadonlySet<Mode> = new Set(['DISABLE', 'PERMISSIVE'])

function openingsOf({
  spec,
}: PeerAuthentication): { path: (string | number)[]; port: number; mode: Mode }[] {
  const ports = Object.entries(spec.portLevelMtls ?? {}).map(([port, { mode }]) => ({
    path: ['spec', 'portLevelMtls', port, 'mode'],
    port: Number(port),
    mode,
  }))
  const mode = spec.mtls?.mode ?? 'UNSET'
  return [{ path: ['spec', 'mtls', 'mode'], port: 8443, mode }, ...ports].filter((it) =>
    opening.has(it.mode),
  )
}

/** Requests without identity to workloads that a PeerAuthentication decides about. */
function* plainRequests(ground: Ground, peer: PeerAuthentication, port: number): Generator<Draft> {
  const { mesh } = ground
  const pin: Change = (draft) => ({ ...draft, principal: undefined, port })
  const scope = { ...peer, targets: undefined }
  for (const rule of rulesBy(ground, 'ALLOW')) {
    const to = whomOf(mesh, scope, rule.policy)
    if (!isInScope(peer, destinationFor(to), mesh)) continue
    yield* samplesOf(rule, strangerAt(to, mesh), { pin })
  }
  yield pin(strangerAt(whomOf(mesh, scope), mesh))
}

function* plaintext(ground: Ground): Generator<Suspicion> {
  for (const peer of ground.documents.peers) {
    for (const { path, port, mode } of openingsOf(peer)) {
      yield {
        at: { kind: 'PeerAuthentication', document: peer, path },
        says: `${mode} takes plaintext, and the policies let it pass`,
        witnesses: () => plainRequests(ground, peer, port),
        shows: isAllowed,
      }
    }
  }
}

export const callerRules: readonly LintRule[] = [
  {
    name: 'allow-only-negative',
    severity: 'error',
    says: 'an ALLOW rule says of callers only who they are not, so everybody else passes; in istio plaintext too',
    mend: 'say who may: add principals, or at least principals: ["*"] beside what is excepted',
    suspect: onlyNegative,
  },
  {
    name: 'principal-pattern-inside-name',
    severity: 'error',
    says: 'a prefix or suffix of principals ends inside of a name, and so takes others too',
    mend: 'end the prefix with a slash, start the suffix with one, or name principals whole',
    suspect: openPrincipals,
  },
  {
    name: 'namesake-of-other-trust-domain',
    severity: 'warning',
    says: 'namespaces and serviceAccounts do not look at the trust domain (istio)',
    mend: 'add trustDomains beside them, or name principals',
    suspect: namesakes,
  },
  {
    name: 'plaintext-passes',
    severity: 'warning',
    says: 'a PeerAuthentication takes plaintext, and requests without identity are allowed',
    mend: 'set the mode to STRICT, or name principals in every ALLOW rule of these workloads',
    suspect: plaintext,
  },
]

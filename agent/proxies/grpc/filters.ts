// Who may call a gRPC program, as the filters that it judges by: who is revoked, what is odd, who is denied, who is
// allowed. A filter without rules would let everybody through, so each has some.
import { destinationOf } from '../../../policies/attributes/request.ts'
import { type Lowered, lower } from '../../../policies/lower/lower.ts'
import {
  all,
  always,
  any,
  header,
  isPresent,
  never,
  not,
  type Predicate,
  peer,
  regex,
  text,
} from '../../../policies/lower/predicate.ts'
import type { Named } from '../../../policies/lower/tree.ts'
import {
  RBAC_Action as Action,
  type RBAC_Action,
} from '../../../proto/gen/envoy/config/rbac/v3/rbac_pb.js'
import { RBACSchema } from '../../../proto/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js'
import type { HttpFilterSchema } from '../../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import { type SpiffeId, trustDomainOf } from '../../../spiffe/id.ts'
import { type Init, typed } from '../envoy/extension.ts'
import type { Situation } from '../envoy/snapshot.ts'
import { inboundProblem } from './problems.ts'
import { fieldsOf, judgedBy, principalOf } from './rules.ts'

type HttpFilter = Init<typeof HttpFilterSchema>

export interface Judgement {
  /** native: the program alone; closed: nobody gets in */
  readonly by: 'native' | 'closed'
  readonly reasons: readonly string[]
  readonly filters: readonly HttpFilter[]
}

function rbac(name: string, action: RBAC_Action, rules: readonly Named[]): HttpFilter {
  const policies = Object.fromEntries(
    rules.map((rule) => [
      rule.name,
      {
        permissions: [{ rule: { case: 'any', value: true } as const }],
        principals: [principalOf(rule.when)],
      },
    ]),
  )
  return typed(name, RBACSchema, { rules: { action, policies } })
}

const denying = (name: string, rules: readonly Named[]): HttpFilter[] =>
  rules.length === 0 ? [] : [rbac(name, Action.DENY, rules)]

// an ALLOW without policies allows nobody: every gRPC reads it so, and says so of a DENY of everybody too
const nobody = rbac('castellan_closed', Action.DENY, [{ name: 'everybody', when: always }])

const word = '[A-Za-z0-9_-]+'
const plainCall = `(?:/${word}(?:\\.${word})*)+`
const plainHost = `${word}(?:\\.${word})*\\.?(?::(?:[0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?`

const guarded = (what: string, when: Predicate): Named => ({ name: `guard[${what}]`, when })

/**
 * What the rules behind it may take for granted. gRPC normalises nothing and looks methods up as they are written,
 * so what is written oddly names none of them. As few expressions as will do: grpc-js-xds has room for some
 * thousands in all its life, and gives none back (docs/grpc.md).
 */
function guardOf(identity: SpiffeId, known: readonly Named[]): Named[] {
  const fields = [...new Set(known.flatMap(({ when }) => fieldsOf(when)))].sort()
  const own = `spiffe://${trustDomainOf(identity)}/`
  return [
    // whoever comes without a certificate too, should the program have been told to take such
    guarded('identity', not(text(peer, 'prefix', own))),
    guarded('call', not(regex(header(':path'), plainCall))),
    ...fields.map((name) =>
      name === ':authority'
        ? guarded('host', not(regex(header(name), plainHost)))
        : // bytes beyond ASCII are compared in different ways, and are no text in gRPC
          guarded(name, all(isPresent(header(name)), not(regex(header(name), '[\\t -~]*')))),
    ),
  ]
}

/** A rule about nobody changes with those who are believed: whatever changes ends connections, gently. */
function revokedRules({ revoked, believed = '' }: Situation): Named[] {
  const when = any(...revoked.map((id) => text(peer, 'exact', id)))
  return [
    ...(revoked.length === 0 ? [] : [{ name: 'deny-list', when }]),
    ...(believed === '' ? [] : [{ name: `roots[${believed}]`, when: never }]),
  ]
}

const closed = (reasons: readonly string[]): Judgement => ({
  ...{ by: 'closed', reasons },
  filters: [nobody],
})

/** What of the policies no gRPC can judge. */
function unlowered({ refused, demands }: Lowered): string[] {
  const left = refused
    .filter(({ isHarmless }) => !isHarmless)
    .map(({ policy, rule, place, why }) =>
      [policy, rule === undefined ? '' : ` rule ${rule}`, ` ${place}: ${why}`].join(''),
    )
  return demands.includes('client-address')
    ? [...left, 'a policy asks for the client behind a proxy, whom gRPC does not know']
    : left
}

/** What is asked of every call, and who is allowed. */
export function judgementOf(spec: InboundSpec, situation: Situation): Judgement {
  const { policies, identity, labels, unseen } = situation
  const problem = inboundProblem(spec)
  if (problem !== undefined) return closed([problem])
  const destination = destinationOf(identity, { port: spec.forwardTo.port, labels })
  const lowered = lower(policies.behind(spec.backend), destination)
  const deny = judgedBy(lowered.rules.deny)
  const allow = judgedBy(lowered.rules.allow)
  const reasons = [...unseen, ...unlowered(lowered), ...deny.reasons, ...allow.reasons]
  if (reasons.length > 0) return closed(reasons)
  const guard = guardOf(identity, [...deny.rules, ...allow.rules])
  return {
    ...{ by: 'native', reasons },
    filters: [
      ...denying('castellan_revoked', revokedRules(situation)),
      ...denying('castellan_guard', guard),
      ...denying('castellan_deny', deny.rules),
      allow.rules.length === 0 ? nobody : rbac('castellan_allow', Action.ALLOW, allow.rules),
    ],
  }
}

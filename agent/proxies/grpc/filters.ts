// Who may call a gRPC program, as the filters that it judges by: who is revoked, what is odd, who is denied, who is
// allowed. A filter without rules would let everybody through, so each has some.
import { destinationOf } from '../../../policies/attributes/request.ts'
import { lower } from '../../../policies/lower/lower.ts'
import {
  all,
  always,
  any,
  header,
  isPresent,
  not,
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
import type { SpiffeId } from '../../../spiffe/id.ts'
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

/** gRPC normalises nothing and looks methods up as they are written: what is written oddly names no method of it. */
const callGuard: Named = {
  name: 'guard[call]',
  when: not(regex(header(':path'), plainCall)),
}

/** Bytes beyond ASCII are compared in different ways, and are no text in gRPC. */
const asciiGuard = (name: string): Named => ({
  name: `guard[${name}]`,
  when: all(isPresent(header(name)), not(regex(header(name), '[\\t -~]*'))),
})

const revokedRules = (ids: readonly SpiffeId[]): Named[] =>
  ids.length === 0
    ? []
    : [{ name: 'deny-list', when: any(...ids.map((id) => text(peer, 'exact', id))) }]

const closed = (reasons: readonly string[]): Judgement => ({
  ...{ by: 'closed', reasons },
  filters: [nobody],
})

/** What is asked of every call, and who is allowed. */
export function judgementOf(spec: InboundSpec, situation: Situation): Judgement {
  const { policies, identity, labels, revoked } = situation
  const problem = inboundProblem(spec)
  if (problem !== undefined) return closed([problem])
  const destination = destinationOf(identity, { port: spec.forwardTo.port, labels })
  const { rules, refused, demands } = lower(policies.behind(spec.backend), destination)
  const unlowered = refused
    .filter(({ isHarmless }) => !isHarmless)
    .map(
      ({ policy, rule, place, why }) =>
        `${policy}${rule === undefined ? '' : ` rule ${rule}`} ${place}: ${why}`,
    )
  const isProxied = demands.includes('client-address')
    ? ['a policy asks for the client behind a proxy, which gRPC does not know']
    : []
  const [guard, deny, allow] = [judgedBy(rules.guard), judgedBy(rules.deny), judgedBy(rules.allow)]
  const unjudged = [guard, deny, allow].flatMap((it) => (it.kind === 'refused' ? it.reasons : []))
  const reasons = [...unlowered, ...isProxied, ...unjudged]
  if (reasons.length > 0) return closed(reasons)
  if (guard.kind === 'refused' || deny.kind === 'refused' || allow.kind === 'refused')
    return closed(reasons)
  const known = [...guard.rules, ...deny.rules, ...allow.rules]
  const fields = [...new Set(known.flatMap(({ when }) => fieldsOf(when)))].sort()
  return {
    ...{ by: 'native', reasons },
    filters: [
      ...denying('castellan_revoked', revokedRules(revoked)),
      ...denying('castellan_guard', [callGuard, ...fields.map(asciiGuard), ...guard.rules]),
      ...denying('castellan_deny', deny.rules),
      ...(allow.rules.length === 0
        ? [nobody]
        : [rbac('castellan_allow', Action.ALLOW, allow.rules)]),
    ],
  }
}

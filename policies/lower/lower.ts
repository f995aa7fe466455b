// The policies of one destination as what a proxy can enforce by itself (design.md §7): a lowered DENY may only
// be wider than what is written, a lowered ALLOW only narrower, and what cannot be lowered so is refused by
// name. Compared is what the proxy has normalised and forwards.
import type { Destination } from '../attributes/request.ts'
import type { PolicySet } from '../compile.ts'
import type { Mesh } from '../language/mesh.ts'
import { type Policy, policyName } from '../language/policy.ts'
import { isInScope, speaksOf } from '../scope.ts'
import { assumeAbsent } from './assume.ts'
import { httpGuard, identityGuard, mutualTlsGuard } from './guard.ts'
import type { Demand, Protocol } from './lowering.ts'
import { peer } from './predicate.ts'
import { type Difference, lowerRule } from './rule.ts'
import { type Ends, type Named, type Tree, type TreeAction, treeOf } from './tree.ts'

/** Where something stands that was not lowered as it is written. */
export interface Remark extends Difference {
  /** `NAMESPACE/NAME`, with its kind where it is no AuthorizationPolicy */
  readonly policy: string
  /** from 0; undefined for all of the document */
  readonly rule: number | undefined
}

export interface Refused extends Remark {
  /** no decision is another one without it */
  readonly isHarmless: boolean
}

export interface Lowered {
  readonly protocol: Protocol
  /** denies, before the others, what they could not judge */
  readonly guard: Tree
  readonly deny: Tree
  readonly allow: Tree
  /** what the trees were made of, for what takes lists only: any of each is enough */
  readonly rules: Readonly<Record<'deny' | 'allow', readonly Named[]>>
  readonly refused: readonly Refused[]
  /** where a DENY is wider than written, or an ALLOW narrower */
  readonly differences: readonly Remark[]
  readonly demands: readonly Demand[]
  /** `guard` and `deny` hold as they are; who is allowed, and what was refused, only the agent can say */
  readonly needsAuthz: boolean
  /** milliseconds since 1970: lower again, for a policy expires then */
  readonly changesAt: number | undefined
}

/** plaintext: nobody shows a certificate, and nothing asks for one. */
export type Connection = 'mutual-tls' | 'plaintext'

interface Gathered {
  readonly deny: Named[]
  readonly allow: Named[]
  readonly refused: Refused[]
  readonly differences: Remark[]
  readonly demands: Set<Demand>
}

interface Where {
  readonly set: PolicySet
  readonly destination: Destination
  readonly protocol: Protocol
  readonly connection: Connection
}

const nothing = (): Gathered => ({
  deny: [],
  allow: [],
  refused: [],
  differences: [],
  demands: new Set(),
})

const end = (action: TreeAction, name: string): Tree => ({ kind: 'end', action, name })
const passes = end('ALLOW', 'none')
const denies = end('DENY', 'none')

/** An expired policy matches nothing; the set knows when the next one of the others expires. */
function hasExpired({ expires }: Policy, { changesAt }: PolicySet): boolean {
  return expires !== undefined && (changesAt === undefined || expires < changesAt)
}

/** Why nothing of a policy is lowered. */
function wholeProblem({ action, isShadow }: Policy): Omit<Refused, 'policy' | 'rule'> | undefined {
  if (isShadow) {
    return { place: 'spec', why: 'only watched: the agent reports of it', isHarmless: true }
  }
  if (action === 'AUDIT') {
    return { place: 'spec.action', why: 'Envoy logs nothing by policy', isHarmless: true }
  }
  if (action === 'CUSTOM') {
    return { place: 'spec.provider', why: 'an external authorizer is asked', isHarmless: false }
  }
  return undefined
}

function gatherPolicy(policy: Policy, { set, destination, protocol }: Where, into: Gathered): void {
  const name = policyName(policy)
  const whole = wholeProblem(policy)
  if (whole !== undefined) {
    into.refused.push({ policy: name, rule: undefined, ...whole })
    return
  }
  for (const [rule, document] of policy.rules.entries()) {
    const lowered = lowerRule(document, { policy, mesh: set.mesh, destination, protocol })
    if (!lowered.ok) {
      const { place, why, isHarmless } = lowered
      into.refused.push({ policy: name, rule, place, why, isHarmless })
      continue
    }
    const named = `ns[${policy.namespace}]-policy[${policy.name}]-rule[${rule}]`
    const list = policy.action === 'ALLOW' ? into.allow : into.deny
    list.push({ name: named, when: lowered.when })
    into.differences.push(...lowered.differences.map((it) => ({ policy: name, rule, ...it })))
    for (const demand of lowered.demands) into.demands.add(demand)
  }
}

/** Documents of other kinds that Envoy cannot enforce. */
function othersOf({ set: { documents, mesh }, destination }: Where): Refused[] {
  const speak = ({ namespace, name }: { namespace: string; name: string }, kind: string) =>
    `${kind} ${namespace}/${name}`
  const rest = { rule: undefined, place: 'spec', isHarmless: false }
  const tokens = documents.authentications
    .filter((it) => isInScope(it, destination, mesh))
    .map((it) => ({
      ...rest,
      policy: speak(it, 'RequestAuthentication'),
      why: 'Envoy verifies no tokens here: one that does not hold has to be refused',
    }))
  const limits = documents.limits
    .filter((it) => it.spec.targets !== undefined || isInScope(it, destination, mesh))
    .map((it) => ({
      ...rest,
      policy: speak(it, 'RateLimit'),
      why: 'Envoy counts no requests here',
    }))
  return [...tokens, ...limits]
}

const exactMethod = /^[^*]+$/

/** Methods that rules name as a whole: the guard lets them through. */
function methodsOf(policies: readonly Policy[]): ReadonlySet<string> {
  const named = policies.flatMap(({ rules }) =>
    rules.flatMap(({ to = [], when = [] }) => [
      ...to.flatMap(({ operation }) => operation.methods ?? []),
      ...when.flatMap(({ key, values }) =>
        key === 'request.headers[:method]' ? (values ?? []) : [],
      ),
    ]),
  )
  return new Set(named.filter((it) => exactMethod.test(it)))
}

function treeFor(rules: readonly Named[], { connection }: Where, ends: Ends): Tree {
  if (connection === 'mutual-tls') return treeOf(rules, ends)
  const absent = rules.map((it) => ({ ...it, when: assumeAbsent(it.when, peer) }))
  return treeOf(absent, ends)
}

function guardOf(where: Where, policies: readonly Policy[]) {
  const { set, destination, protocol } = where
  const ports = set.documents.peers.flatMap(({ spec }) => Object.keys(spec.portLevelMtls ?? {}))
  const named = [...new Set(ports.map(Number))]
  const mutualTls = mutualTlsGuard(
    set.guardOf(destination).demandsMutualTls,
    destination.port,
    named,
  )
  const rules = protocol === 'tcp' ? [identityGuard] : httpGuard({ methods: methodsOf(policies) })
  return treeFor([...rules, mutualTls], where, { action: 'DENY', otherwise: passes })
}

function unlowered(mesh: Mesh, protocol: Protocol): Lowered {
  const why = `the ${mesh.profile} profile is not lowered: Envoy would not decide as Istio's rules say`
  return {
    protocol,
    guard: passes,
    deny: passes,
    allow: denies,
    rules: { deny: [], allow: [] },
    refused: [{ policy: '*', rule: undefined, place: 'profile', why, isHarmless: false }],
    differences: [],
    demands: [],
    needsAuthz: true,
    changesAt: undefined,
  }
}

/**
 * What of a set concerns a destination. Where the destination's port or address is unknown they are compared
 * with the listener's. Never throws.
 */
export function lower(
  set: PolicySet,
  destination: Destination,
  {
    protocol = 'http',
    connection = 'mutual-tls',
  }: { readonly protocol?: Protocol; readonly connection?: Connection } = {},
): Lowered {
  if (set.mesh.profile !== 'strict') return unlowered(set.mesh, protocol)
  const where: Where = { set, destination, protocol, connection }
  const policies = set.documents.policies.filter(
    (it) => speaksOf(it, destination, set.mesh) && !hasExpired(it, set),
  )
  const into = nothing()
  for (const policy of policies) gatherPolicy(policy, where, into)
  into.refused.push(...othersOf(where))
  return {
    protocol,
    guard: guardOf(where, policies),
    deny: treeFor(into.deny, where, { action: 'DENY', otherwise: passes }),
    allow: treeFor(into.allow, where, { action: 'ALLOW', otherwise: denies }),
    rules: { deny: into.deny, allow: into.allow },
    refused: into.refused,
    differences: into.differences,
    demands: [...into.demands].sort(),
    needsAuthz: into.refused.some(({ isHarmless }) => !isHarmless),
    changesAt: set.changesAt,
  }
}

// Documents to what decisions are made with: for each destination the rules that guard it, indexed. A set
// never changes once it is made; a new one takes over what stayed the same.
import type { Destination } from './attributes/request.ts'
import { createIndex, type RuleIndex } from './index/callers.ts'
import { type Backend, defaultMesh, type Mesh, withBackend } from './language/mesh.ts'
import type { Policy } from './language/policy.ts'
import { noDocuments, type PolicyDocuments } from './language/read.ts'
import { type CompiledLimit, compileLimits } from './limits.ts'
import { mutualTlsDemand } from './peers.ts'
import type { Action } from './rules/quantify.ts'
import { type CompiledRule, compileRule } from './rules/rule.ts'
import { isInScope, speaksOf } from './scope.ts'
import {
  type Authentication,
  createAuthentication,
  type JwksSource,
} from './tokens/authenticate.ts'

/** What decides about the requests of one destination. */
export interface Guard {
  readonly mesh: Mesh
  /** an index for each provider, every one of which has to consent */
  readonly custom: readonly RuleIndex[]
  readonly deny: RuleIndex
  readonly allow: RuleIndex
  readonly audit: RuleIndex
  /** istio: without an ALLOW policy, even one that matches nothing, the default action decides */
  readonly hasAllow: boolean
  /** what RequestAuthentication demands, before anything is decided */
  readonly authentication: Authentication
  /** whether a port takes only mutual TLS */
  readonly demandsMutualTls: (port: number | undefined) => boolean
  /** how often a caller may ask, once it is allowed to */
  readonly limits: readonly CompiledLimit[]
  /** policies that are only watched, as if they were in force by themselves; undefined without any */
  readonly shadow: Pick<Guard, 'deny' | 'allow' | 'hasAllow'> | undefined
}

export interface PolicySet {
  readonly documents: PolicyDocuments
  readonly mesh: Mesh
  /** milliseconds since 1970 at which the next policy expires: then it is time for a new set */
  readonly changesAt: number | undefined
  /** The same documents at another time, in milliseconds since 1970. */
  at(now: number): PolicySet
  /** The same for destinations whose program reads paths so; made once. As it is where nothing is said. */
  behind(backend: Backend | undefined): PolicySet
  /** made when first asked for, then kept */
  guardOf(destination: Destination): Guard
}

export interface CompileOptions {
  readonly mesh?: Mesh
  /** milliseconds since 1970: what has expired by then matches nothing */
  readonly now?: number
  /** the keys of token issuers that are named by an address; without it, none of their tokens hold */
  readonly jwks?: JwksSource
}

// a node serves few destinations; what asks for more is not worth remembering
const mostGuards = 1024

const compiled = new WeakMap<Mesh, WeakMap<Policy, readonly CompiledRule[]>>()

/** By identity: a policy that stays in the next set brings its rules along. */
function rulesOf(policy: Policy, mesh: Mesh): readonly CompiledRule[] {
  const ofMesh = compiled.get(mesh) ?? new WeakMap<Policy, readonly CompiledRule[]>()
  compiled.set(mesh, ofMesh)
  const known = ofMesh.get(policy)
  if (known !== undefined) return known
  const made = policy.rules.map((_, i) => compileRule(policy, i, mesh))
  ofMesh.set(policy, made)
  return made
}

interface Sorted {
  readonly rules: Record<Action, CompiledRule[]>
  hasAllow: boolean
}

const sorted = (): Sorted => ({
  rules: { ALLOW: [], DENY: [], AUDIT: [], CUSTOM: [] },
  hasAllow: false,
})

type Rules = Omit<Guard, 'authentication' | 'demandsMutualTls' | 'limits'>

function rulesFor(policies: readonly Policy[], mesh: Mesh, now: number): Rules {
  const [real, watched] = [sorted(), sorted()]
  let isWatching = false
  for (const policy of policies) {
    const its = policy.isShadow ? watched : real
    isWatching ||= policy.isShadow
    its.hasAllow ||= policy.action === 'ALLOW'
    // an expired ALLOW still says that only what is allowed may pass
    if (policy.expires !== undefined && policy.expires <= now) continue
    for (const rule of rulesOf(policy, mesh)) its.rules[policy.action].push(rule)
  }
  const index = ({ rules }: Sorted, action: Action) =>
    createIndex(rules[action], mesh, action !== 'ALLOW')
  const byProvider = Map.groupBy(real.rules.CUSTOM, ({ policy }) => policy.provider)
  const shadow = isWatching
    ? { deny: index(watched, 'DENY'), allow: index(watched, 'ALLOW'), hasAllow: watched.hasAllow }
    : undefined
  return {
    mesh,
    custom: [...byProvider.values()].map((rules) => createIndex(rules, mesh, true)),
    deny: index(real, 'DENY'),
    allow: index(real, 'ALLOW'),
    audit: index(real, 'AUDIT'),
    hasAllow: real.hasAllow,
    shadow,
  }
}

function keyOf({ namespace, labels, id }: Destination, usesIds: boolean): string {
  const names = Object.keys(labels).sort()
  return JSON.stringify([
    namespace,
    usesIds ? id : undefined,
    names,
    names.map((name) => labels[name]),
  ])
}

export function compile(documents: PolicyDocuments, options: CompileOptions = {}): PolicySet {
  const { mesh = defaultMesh, now = 0, jwks = () => undefined } = options
  const guards = new Map<string, Guard>()
  const known = new WeakMap<Destination, Guard>()
  const targeted = [...documents.policies, ...documents.limits]
  const usesIds = targeted.some(({ targets }) => targets !== undefined)
  const ends = documents.policies.flatMap(({ expires }) =>
    expires === undefined || expires <= now ? [] : [expires],
  )

  function find(destination: Destination): Guard {
    const key = keyOf(destination, usesIds)
    const kept = guards.get(key)
    if (kept !== undefined) return kept
    if (guards.size >= mostGuards) guards.clear()
    const inScope = documents.policies.filter((policy) => speaksOf(policy, destination, mesh))
    const trusted = documents.authentications.filter((it) => isInScope(it, destination, mesh))
    const authentication = createAuthentication(trusted, jwks, mesh.profile)
    const demandsMutualTls = mutualTlsDemand(documents.peers, destination, mesh)
    const limits = documents.limits
      .filter((it) => speaksOf(it, destination, mesh))
      .flatMap((it) => compileLimits(it, mesh))
    const guard = { ...rulesFor(inScope, mesh, now), authentication, demandsMutualTls, limits }
    guards.set(key, guard)
    return guard
  }

  const byBackend = new Map<Backend, PolicySet>()
  function behind(backend: Backend | undefined): PolicySet {
    if (backend === undefined || backend === mesh.backend) return set
    const kept =
      byBackend.get(backend) ?? compile(documents, { mesh: withBackend(mesh, backend), now, jwks })
    byBackend.set(backend, kept)
    return kept
  }

  const set: PolicySet = {
    documents,
    mesh,
    behind,
    changesAt: ends.length === 0 ? undefined : Math.min(...ends),
    at: (time) => compile(documents, { mesh, jwks, now: time }),
    guardOf(destination) {
      const kept = known.get(destination)
      if (kept !== undefined) return kept
      const guard = find(destination)
      known.set(destination, guard)
      return guard
    },
  }
  return set
}

export const noPolicies: PolicySet = compile(noDocuments)

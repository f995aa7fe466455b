// What the rules of the linter look at: the set as it decides, its rules in force, and where policies meet.
import type { SpiffeId } from '../../spiffe/id.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import type { Destination } from '../attributes/request.ts'
import { compile, type PolicySet } from '../compile.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Labels, Policy } from '../language/policy.ts'
import type { PolicyDocuments } from '../language/read.ts'
import type { Action } from '../rules/quantify.ts'
import { type CompiledRule, compileRule } from '../rules/rule.ts'
import { hasLabels, speaksOf } from '../scope.ts'
import { strangers } from './choices.ts'
import { ask, type Change, type Draft, type Outcome, type Whom } from './draft.ts'
import { principalExamples } from './examples.ts'
import { samplesOf } from './samples.ts'

/** A workload that is known to be there. */
export interface Workload {
  readonly id: SpiffeId | undefined
  readonly namespace: string
  readonly labels: Labels
  /** ports on which it speaks no HTTP */
  readonly tcp: readonly number[]
}

export interface Ground {
  readonly set: PolicySet
  readonly mesh: Mesh
  readonly documents: PolicyDocuments
  /** milliseconds since 1970 */
  readonly now: number
  /** milliseconds: what expires within them expires soon */
  readonly soon: number
  /** undefined when nobody has said which there are */
  readonly workloads: readonly Workload[] | undefined
  /** of policies that decide at present */
  readonly rules: readonly CompiledRule[]
  rulesOf(policy: Policy): readonly CompiledRule[]
  ask(draft: Draft): Outcome
}

export interface GroundOptions {
  readonly mesh: Mesh
  readonly now: number
  readonly soon: number
  readonly workloads: readonly Workload[] | undefined
}

/** Whether a policy decides about anything: enforced, not of a gateway, not expired. */
export function isInForce({ isElsewhere, isShadow, expires }: Policy, now: number): boolean {
  return !isElsewhere && !isShadow && (expires === undefined || expires > now)
}

export function groundOf(documents: PolicyDocuments, options: GroundOptions): Ground {
  const { mesh, now } = options
  const set = compile(documents, { mesh, now })
  const made = new Map<Policy, readonly CompiledRule[]>()
  const rulesOf = (policy: Policy) => {
    const rules = made.get(policy) ?? policy.rules.map((_, i) => compileRule(policy, i, mesh))
    made.set(policy, rules)
    return rules
  }
  return {
    ...options,
    set,
    documents,
    rules: documents.policies.filter((it) => isInForce(it, now)).flatMap(rulesOf),
    rulesOf,
    ask: (draft) => ask(set, draft, now),
  }
}

type Scope = Pick<Policy, 'namespace' | 'selector' | 'targets'>

/** A workload that all of the scopes speak of, the first of them surely. */
export function whomOf(mesh: Mesh, ...scopes: readonly Scope[]): Whom {
  const untargeted = scopes.filter(({ targets }) => targets === undefined)
  const namespace = untargeted.find((it) => it.namespace !== mesh.rootNamespace)?.namespace
  const labels = Object.assign({}, ...scopes.map(({ selector }) => selector))
  const [targets] = scopes.flatMap((it) => it.targets ?? [])
  const text = targets === undefined ? undefined : textOf(targets)
  const [principal] = text === undefined ? [] : principalExamples(text, mesh)
  return { namespace: namespace ?? 'default', labels, principal }
}

function textOf(pattern: NonNullable<Policy['targets']>[number]): string {
  switch (pattern.kind) {
    case 'exact':
      return pattern.text
    case 'prefix':
      return `${pattern.text}*`
    case 'suffix':
      return `*${pattern.text}`
    case 'present':
      return '*'
  }
}

export function destinationFor({ namespace, labels, principal }: Whom): Destination {
  const id = principal !== undefined && isSpiffeId(principal) ? principal : undefined
  return { id, namespace, labels, ip: undefined, port: undefined }
}

/** Somebody unknown asks for the root. */
export function strangerAt(to: Whom, mesh: Mesh): Draft {
  return {
    to,
    toIp: undefined,
    port: 8443,
    principal: strangers(mesh)[0],
    ip: '198.51.100.7',
    remoteIp: undefined,
    sni: undefined,
    isTcp: false,
    method: 'GET',
    path: '/',
    host: 'service.test',
    headers: [],
    claims: undefined,
  }
}

export function rulesBy(ground: Ground, ...actions: readonly Action[]): readonly CompiledRule[] {
  return ground.rules.filter(({ policy }) => actions.includes(policy.action))
}

const mostMeetings = 64

interface Meeting {
  readonly rule: CompiledRule
  readonly to: Whom
}

const known = new WeakMap<Ground, Map<Policy, readonly Meeting[]>>()

/** Most policies of a large set have nothing to do with one another. */
function mayMeet(one: Policy, other: Policy, { rootNamespace }: Mesh): boolean {
  if (one.targets !== undefined || other.targets !== undefined) return true
  const names = [one.namespace, other.namespace]
  return one.namespace === other.namespace || names.includes(rootNamespace)
}

/** ALLOW rules, and for each a workload that they and the policy speak of. */
function meetingsOf(ground: Ground, policy: Policy): readonly Meeting[] {
  const { mesh } = ground
  const kept = known.get(ground) ?? new Map<Policy, readonly Meeting[]>()
  known.set(ground, kept)
  const made = kept.get(policy)
  if (made !== undefined) return made
  const meetings = rulesBy(ground, 'ALLOW').flatMap((rule): Meeting[] => {
    if (!mayMeet(policy, rule.policy, mesh)) return []
    const to = whomOf(mesh, policy, rule.policy)
    const destination = destinationFor(to)
    const both = [policy, rule.policy].every((it) => speaksOf(it, destination, mesh))
    return both ? [{ rule, to }] : []
  })
  kept.set(policy, meetings.slice(0, mostMeetings))
  return meetings.slice(0, mostMeetings)
}

/**
 * Requests to a workload that `policy` speaks of and that an ALLOW lets in, as far as ALLOW rules go; `pin`
 * fixes what they have to be like.
 */
export function* allowedDrafts(ground: Ground, policy: Policy, pin: Change): Generator<Draft> {
  const { mesh } = ground
  for (const { rule, to } of meetingsOf(ground, policy)) {
    yield* samplesOf(rule, pin(strangerAt(to, mesh)), { pin })
  }
  yield pin(strangerAt(whomOf(mesh, policy), mesh))
}

/** Whether the scope of one holds all that the scope of the other does. */
export function isWithin(inner: Policy, outer: Policy, { rootNamespace }: Mesh): boolean {
  if (!hasLabels(inner.selector ?? {}, outer.selector)) return false
  if (outer.targets !== undefined) {
    return inner.targets?.every((it) => isTarget(it, outer)) === true
  }
  if (outer.namespace === rootNamespace) return true
  return inner.targets === undefined && inner.namespace === outer.namespace
}

function isTarget(pattern: NonNullable<Policy['targets']>[number], outer: Policy): boolean {
  return (outer.targets ?? []).some((it) => JSON.stringify(it) === JSON.stringify(pattern))
}

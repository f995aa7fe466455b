// Who decides at a listener: Envoy alone where that is sound (design.md §8), else the agent, else nobody gets in.
import { destinationOf } from '../../../policies/attributes/request.ts'
import type { PolicySet } from '../../../policies/compile.ts'
import type { Labels } from '../../../policies/language/policy.ts'
import { type Connection, type Lowered, lower } from '../../../policies/lower/lower.ts'
import type { Predicate } from '../../../policies/lower/predicate.ts'
import type { Tree } from '../../../policies/lower/tree.ts'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import type { SpiffeId } from '../../../spiffe/id.ts'

export interface Enforcement {
  /** native: Envoy's RBAC alone; asked: the agent, behind what Envoy can refuse by itself; closed: nobody gets in */
  readonly by: 'native' | 'asked' | 'closed'
  readonly lowered: Lowered
  /** all that is in force, also what is left to the agent */
  readonly rules: Lowered
  /** why Envoy does not decide alone */
  readonly reasons: readonly string[]
}

export interface Decider {
  readonly policies: PolicySet
  readonly identity: SpiffeId
  readonly labels: Labels
  /** whether certificates of other trust domains are believed */
  readonly isFederated: boolean
  /** what of the deny-list Envoy cannot hold by itself, in words */
  readonly unseen: readonly string[]
  /** whether the agent answers decisions */
  readonly canAsk: boolean
  /** by which the workload is told who asks */
  readonly identityHeader: string
  /** whether it is asked even where Envoy could decide alone */
  readonly asksAlways: boolean
}

const passes: Tree = { kind: 'end', action: 'ALLOW', name: 'none' }

/** Whom Envoy denied by itself the agent would never hear of; the guard stays, for it keeps requests plain. */
function leftToAgent(lowered: Lowered, canAsk: boolean): Enforcement {
  const reasons = ['the configuration says that the agent decides']
  if (!canAsk) return { by: 'closed', lowered, rules: lowered, reasons }
  return { by: 'asked', lowered: { ...lowered, deny: passes }, rules: lowered, reasons }
}

const asksFor = (predicate: Predicate, name: string): boolean => {
  switch (predicate.kind) {
    case 'text':
      return predicate.input.kind === 'header' && predicate.input.name === name
    case 'address':
      return false
    case 'all':
    case 'any':
      return predicate.of.some((it) => asksFor(it, name))
    case 'not':
      return asksFor(predicate.of, name)
  }
}

/** Whether a header decides anything: what callers send of it is taken off only behind the rules. */
function names(tree: Tree, name: string): boolean {
  switch (tree.kind) {
    case 'end':
      return false
    case 'list':
      return tree.rules.some(({ when }) => asksFor(when, name)) || names(tree.otherwise, name)
    case 'map':
      return [...tree.branches.values(), tree.otherwise].some((it) => names(it, name))
  }
}

function reasonsOf(
  { refused, demands, deny, allow }: Lowered,
  { isFederated, identityHeader, unseen }: Decider,
): string[] {
  const federated = isFederated
    ? ['certificates of other trust domains are believed: only the agent looks at them closely']
    : []
  const slashes = demands.includes('plain-slashes')
    ? ['a policy names a path with empty segments, which Envoy merges']
    : []
  const claimed = [deny, allow].some((tree) => names(tree, identityHeader))
    ? [`a policy names ${identityHeader}, which a caller could send`]
    : []
  const unlowered = refused
    .filter(({ isHarmless }) => !isHarmless)
    .map(({ policy, rule, place, why }) =>
      [policy, rule === undefined ? '' : ` rule ${rule}`, ` ${place}: ${why}`].join(''),
    )
  return [...federated, ...unseen, ...slashes, ...claimed, ...unlowered]
}

const kinds: Readonly<Record<InboundSpec['mtls'], readonly Connection[]>> = {
  strict: ['mutual-tls'],
  permissive: ['mutual-tls', 'plaintext'],
  off: ['plaintext'],
}

/** What is taken at a listener: each has rules of its own, for Envoy gives up where it is asked for nobody's peer. */
export const connectionsOf = ({ mtls }: InboundSpec): readonly Connection[] => kinds[mtls]

export function enforcementOf(
  spec: InboundSpec,
  connection: Connection,
  decider: Decider,
): Enforcement {
  const { policies, identity, labels, canAsk, asksAlways } = decider
  const { protocol, backend, forwardTo } = spec
  const destination = destinationOf(identity, { port: forwardTo.port, labels })
  const lowered = lower(policies.behind(backend), destination, {
    protocol: protocol === 'tcp' ? 'tcp' : 'http',
    connection,
  })
  if (asksAlways) return leftToAgent(lowered, canAsk)
  const reasons = reasonsOf(lowered, decider)
  // rules of connections would have to stand in the listener, whose live connections keep the old ones
  if (protocol === 'tcp') reasons.push('connections are decided by the agent')
  if (reasons.length === 0) return { by: 'native', lowered, rules: lowered, reasons }
  return { by: canAsk ? 'asked' : 'closed', lowered, rules: lowered, reasons }
}

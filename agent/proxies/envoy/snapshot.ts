// All that one Envoy is to be: a pure function of the spec, the mesh, and what is known of both.
import { hash } from 'node:crypto'
import { type DescMessage, type MessageShape, toBinary } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import type { PolicySet } from '../../../policies/compile.ts'
import { type Labels, policyName } from '../../../policies/language/policy.ts'
import type { Lowered } from '../../../policies/lower/lower.ts'
import { ClusterSchema } from '../../../proto/gen/envoy/config/cluster/v3/cluster_pb.js'
import { ClusterLoadAssignmentSchema } from '../../../proto/gen/envoy/config/endpoint/v3/endpoint_pb.js'
import { ListenerSchema } from '../../../proto/gen/envoy/config/listener/v3/listener_pb.js'
import { RouteConfigurationSchema } from '../../../proto/gen/envoy/config/route/v3/route_pb.js'
import { endpointsFor, type ServiceEndpoint } from '../../../proxy-spec/endpoint.ts'
import type { InboundSpec } from '../../../proxy-spec/inbound.ts'
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import type { ProxySpec } from '../../../proxy-spec/spec.ts'
import { type SpiffeId, trustDomainOf } from '../../../spiffe/id.ts'
import type { Resource } from '../../xds/resource.ts'
import type { Cuts } from '../cuts.ts'
import {
  assignment,
  decisionCluster,
  isDiscovered,
  isOf,
  peerCluster,
  peersCluster,
  workloadClusters,
} from './clusters.ts'
import { connectionsOf, type Enforcement, enforcementOf } from './enforcement.ts'
import { inboundListener, outboundListener, routesOf } from './listeners.ts'
import { listening } from './problems.ts'
import { inboundRoutes, outboundRoutes } from './routes.ts'

/** Names of secrets that mean a choice of trust domains. */
export interface TrustNames {
  readonly own: string
  readonly all: string
}

export interface Situation {
  readonly spec: ProxySpec
  readonly identity: SpiffeId
  readonly labels: Labels
  readonly policies: PolicySet
  readonly trust: TrustNames
  /** whether certificates of other trust domains are believed */
  readonly isFederated: boolean
  /** identities on the deny-list */
  readonly revoked: readonly SpiffeId[]
  /** what of the deny-list Envoy cannot hold by itself, in words */
  readonly unseen: readonly string[]
  /** what of it a program without a proxy holds otherwise than it says, in words */
  readonly remarks?: readonly string[] | undefined
  /** see DeniedToPrograms.trust */
  readonly believed?: string | undefined
  /** of services, by name */
  readonly endpoints: ReadonlyMap<string, readonly ServiceEndpoint[]>
  /** path of the socket that answers decisions */
  readonly decisions: string | undefined
  /** whether the agent is asked even where Envoy could decide alone */
  readonly asksAlways: boolean
  /** milliseconds that SVIDs live at least, from notBefore to notAfter */
  readonly life: number
  /** what was open before is closed where they are others than before */
  readonly cuts: Cuts
  /** what is denied of servers besides `revoked`: nobody can be asked about them */
  readonly servers?:
    | {
        readonly denied: readonly SpiffeId[]
        /** why nobody of the own trust domain can be called, in words */
        readonly barred: readonly string[]
      }
    | undefined
}

export type Resources = ReadonlyMap<string, Resource>

export interface Snapshot {
  readonly clusters: Resources
  readonly endpoints: Resources
  readonly listeners: Resources
  readonly routes: Resources
  /** by the names of inbound listeners */
  readonly enforcement: ReadonlyMap<string, Pick<Enforcement, 'by' | 'reasons'>>
  /** what is done otherwise than the spec says */
  readonly remarks?: readonly string[]
  /** milliseconds since the epoch: a policy expires then */
  readonly changesAt: number | undefined
}

const typeOf = {
  clusters: ClusterSchema,
  endpoints: ClusterLoadAssignmentSchema,
  listeners: ListenerSchema,
  routes: RouteConfigurationSchema,
} as const
type Kind = keyof typeof typeOf

function resourceOf<T extends DescMessage>(
  schema: T,
  name: string,
  message: MessageShape<T>,
): Resource {
  const version = hash('sha256', toBinary(schema, message), 'base64url').slice(0, 16)
  const any = anyPack(schema, message)
  return { name, version, pack: () => any }
}

/** Gathers resources under their names. */
export function gathering() {
  const all: Record<Kind, Map<string, Resource>> = {
    clusters: new Map(),
    endpoints: new Map(),
    listeners: new Map(),
    routes: new Map(),
  }
  return {
    all,
    put<K extends Kind>(kind: K, name: string, message: MessageShape<(typeof typeOf)[K]>): void {
      all[kind].set(name, resourceOf<DescMessage>(typeOf[kind], name, message))
    },
  }
}
export type Gathering = ReturnType<typeof gathering>

/**
 * Envoy never looks at a peer's certificate again, so connections end before it does. They may have begun when three
 * fifths of it were over (spiffe/renewal.ts), and its life is counted from before it was made; peers live as long as we.
 */
function ageOf({ maxConnectionAge }: Partial<InboundSpec>, { life }: Situation): number {
  return Math.max(1000, Math.min(maxConnectionAge ?? Infinity, Math.floor(life / 4)))
}

const unmapped = (_: string, value: unknown) => (value instanceof Map ? [...value] : value)

/** Names what decides about connections: another text once that is something else. */
function rulesIn(all: readonly Lowered[], { documents }: PolicySet): string {
  const refused = new Set(
    all.flatMap((it) => it.refused.filter(({ isHarmless }) => !isHarmless)).map((it) => it.policy),
  )
  const texts = documents.policies.filter((it) => refused.has(policyName(it)))
  const parts = all.map(({ guard, deny, allow }) => [guard, deny, allow])
  const text = JSON.stringify([parts, texts.map(({ action, rules }) => [action, rules])], unmapped)
  return hash('sha256', text, 'base64url').slice(0, 16)
}

function addInbound(
  into: Gathering,
  spec: InboundSpec,
  name: string,
  situation: Situation,
): readonly Enforcement[] {
  const { identity, policies, labels, isFederated, unseen, trust, revoked } = situation
  const { asksAlways } = situation
  const resource = `inbound/${name}`
  const canAsk = situation.decisions !== undefined
  const { identityHeader } = situation.spec
  const federation = { isFederated, unseen }
  const decider = {
    ...{ policies, identity, labels, canAsk, asksAlways, identityHeader },
    ...federation,
  }
  for (const cluster of workloadClusters(spec, name)) into.put('clusters', cluster.name, cluster)
  const judged = connectionsOf(spec).map((it) => [it, enforcementOf(spec, it, decider)] as const)
  const rules = judged.map(([, enforcement]) => enforcement.rules)
  const listener = inboundListener(
    { ...spec, listen: listening(spec.listen) },
    {
      ...{ resource, name, canAsk, isFederated, trustedHops: policies.mesh.trustedHops },
      secrets: { svid: identity, trust: isFederated ? trust.all : trust.own },
      maxConnectionAge: ageOf(spec, situation),
      cut: situation.cuts.inbound,
      // Envoy asks about a connection once: it is made anew when others may have it
      rules: spec.protocol === 'tcp' ? rulesIn(rules, policies) : '',
    },
  )
  into.put('listeners', resource, listener)
  return judged.map(([connection, enforcement]) => {
    if (spec.protocol === 'tcp') return enforcement
    const told = { port: spec.forwardTo.port, backend: spec.backend, identityHeader }
    const hasPeer = connection === 'mutual-tls'
    // Envoy refuses everybody where it is asked for the peer of a plaintext connection
    const judge = { enforcement, revoked: hasPeer ? revoked : [], canAsk, told }
    const routes = routesOf(resource, connection)
    into.put('routes', routes, inboundRoutes(spec, { resource: routes, name, judge, hasPeer }))
    return enforcement
  })
}

/** The least that Envoy decides alone of what a listener takes. */
function leastOf(all: readonly Enforcement[]): Pick<Enforcement, 'by' | 'reasons'> {
  const order = ['closed', 'asked', 'native'] as const
  const by = order.find((it) => all.some((one) => one.by === it)) ?? 'closed'
  return { by, reasons: [...new Set(all.flatMap(({ reasons }) => reasons))] }
}

/** Gives what a person should know of it. Where all that are expected are on the deny-list there are no endpoints. */
function addOutbound(
  into: Gathering,
  spec: OutboundSpec,
  name: string,
  situation: Situation,
): readonly string[] {
  const { identity, trust, endpoints: known, revoked, servers } = situation
  const resource = `outbound/${name}`
  const own = trustDomainOf(identity)
  const { denied = [], barred = [] } = servers ?? {}
  const isTrusted = (id: SpiffeId) =>
    !revoked.includes(id) &&
    !denied.includes(id) &&
    (barred.length === 0 || trustDomainOf(id) !== own)
  const trusted = spec.expect.filter(isTrusted)
  const isBarred = trusted.length === 0
  const found = endpointsFor(known.get(spec.service ?? '') ?? [], trusted)
  const endpoints = isBarred ? [] : found
  const isOwn = isOf(spec, own)
  const called = {
    ...spec,
    expect: isBarred ? spec.expect : trusted,
    ...(isBarred && spec.destination !== undefined ? { destination: [] } : {}),
  }
  // what is open to a server that is denied ends with what the workload has open here
  const cut = situation.cuts.outbound[name] ?? ''
  const cluster = peersCluster(called, {
    ...{ name, endpoints, cut },
    secrets: { svid: identity, trust: isOwn ? trust.own : trust.all },
    maxConnectionAge: ageOf({}, situation),
  })
  into.put('clusters', cluster.name, cluster)
  if (isDiscovered(spec, endpoints)) {
    into.put('endpoints', peerCluster(name), assignment(peerCluster(name), endpoints))
  }
  const listen = listening(spec.listen)
  into.put('listeners', resource, outboundListener({ ...spec, listen }, { resource, name, cut }))
  if (spec.protocol !== 'tcp') {
    const { identityHeader } = situation.spec
    into.put('routes', resource, outboundRoutes(spec, { resource, name, identityHeader }))
  }
  const reasons = ['whom it expects is on the deny-list', ...barred]
  return isBarred
    ? [`${name}: nobody is called: ${(barred.length > 0 ? barred : reasons).join('; ')}`]
    : []
}

export function snapshotOf(situation: Situation): Snapshot {
  const { spec, policies, decisions } = situation
  const into = gathering()
  const enforcement = new Map<string, Pick<Enforcement, 'by' | 'reasons'>>()
  if (decisions !== undefined) {
    const cluster = decisionCluster(decisions)
    into.put('clusters', cluster.name, cluster)
  }
  for (const [i, it] of spec.inbound.entries()) {
    const name = it.name ?? `inbound-${i}`
    enforcement.set(name, leastOf(addInbound(into, it, name, situation)))
  }
  const remarks = spec.outbound.flatMap((it, i) =>
    addOutbound(into, it, it.name ?? `outbound-${i}`, situation),
  )
  return { ...into.all, enforcement, remarks, changesAt: policies.changesAt }
}

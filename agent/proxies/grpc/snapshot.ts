// All that one gRPC program is told: a pure function of the same spec, mesh and knowledge as Envoy's.
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import type { SpiffeId } from '../../../spiffe/id.ts'
import { listening } from '../envoy/problems.ts'
import { type Gathering, gathering, type Situation, type Snapshot } from '../envoy/snapshot.ts'
import { clientCluster, clientListener, clientRoutes, endpoints, isLookedUp } from './clients.ts'
import { judgementOf } from './filters.ts'
import { clusterName, dialled, routesName, serverName } from './names.ts'
import { inboundRemarks, outboundProblem, outboundRemarks } from './problems.ts'
import { serverListener } from './servers.ts'

/** Why nobody may be called; empty where somebody may. */
function barring(trusted: readonly SpiffeId[], { unseen }: Situation): string[] {
  if (unseen.length > 0) return [`nobody is called: ${unseen.join('; ')}`]
  return trusted.length > 0 ? [] : ['nobody is called: whom it expects is on the deny-list']
}

/**
 * Gives what a person should know of it. Where nobody may be called there are no endpoints: an empty list of names
 * would be read as everybody's, and a listener that comes back is not seen by every program.
 */
function addOutbound(
  into: Gathering,
  spec: OutboundSpec,
  name: string,
  situation: Situation,
): string[] {
  const { endpoints: known, identity, revoked } = situation
  const all = (spec.destination ?? known.get(spec.service ?? '') ?? []).map(listening)
  const problem = outboundProblem(spec, { addresses: all, identity })
  if (problem !== undefined) return [`${name} cannot be dialled: ${problem}`]
  const trusted = spec.expect.filter((id) => !revoked.includes(id))
  const barred = barring(trusted, situation)
  const expect = trusted.length === 0 ? spec.expect : trusted
  const addresses = barred.length === 0 ? all : []
  const cluster = clusterName(name)
  into.put('listeners', name, clientListener(name))
  into.put('routes', routesName(name), clientRoutes(spec, name))
  into.put('clusters', cluster, clientCluster({ ...spec, expect }, name, addresses))
  if (!isLookedUp(addresses)) into.put('endpoints', cluster, endpoints(cluster, addresses))
  return [...barred, ...outboundRemarks(spec)].map((it) => `${name}: ${it}`)
}

export function grpcSnapshot(situation: Situation): Snapshot {
  const { spec, policies } = situation
  const into = gathering()
  const inbound = spec.inbound.map((it, i) => {
    const listen = listening(it.listen)
    const judgement = judgementOf(it, situation)
    into.put('listeners', serverName(listen), serverListener(listen, judgement))
    return [it.name ?? `inbound-${i}`, judgement] as const
  })
  const outbound = spec.outbound.flatMap((it, i) =>
    addOutbound(into, it, dialled(it, i), situation),
  )
  const ages = spec.inbound.flatMap((it, i) =>
    inboundRemarks(it).map((remark) => `${it.name ?? `inbound-${i}`}: ${remark}`),
  )
  return {
    ...into.all,
    enforcement: new Map(inbound),
    remarks: [...(situation.remarks ?? []), ...ages, ...outbound],
    changesAt: policies.changesAt,
  }
}

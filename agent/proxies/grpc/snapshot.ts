// All that one gRPC program is told: a pure function of the same spec, mesh and knowledge as Envoy's.
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import { listening } from '../envoy/problems.ts'
import { type Gathering, gathering, type Situation, type Snapshot } from '../envoy/snapshot.ts'
import { clientCluster, clientListener, clientRoutes, endpoints, isLookedUp } from './clients.ts'
import { judgementOf } from './filters.ts'
import { clusterName, dialled, routesName, serverName } from './names.ts'
import { outboundProblem, outboundRemarks } from './problems.ts'
import { serverListener } from './servers.ts'

/**
 * Gives what a person should know of it. Where everybody who is expected is on the deny-list there are no endpoints:
 * an empty list of names would be read as everybody's, and a listener that comes back is not seen by every program.
 */
function addOutbound(
  into: Gathering,
  spec: OutboundSpec,
  name: string,
  { endpoints: known, identity, revoked }: Situation,
): string[] {
  const all = (spec.destination ?? known.get(spec.service ?? '') ?? []).map(listening)
  const problem = outboundProblem(spec, { addresses: all, identity })
  if (problem !== undefined) return [`${name} cannot be dialled: ${problem}`]
  const trusted = spec.expect.filter((id) => !revoked.includes(id))
  const isBarred = trusted.length === 0
  const expect = isBarred ? spec.expect : trusted
  const addresses = isBarred ? [] : all
  const cluster = clusterName(name)
  into.put('listeners', name, clientListener(name))
  into.put('routes', routesName(name), clientRoutes(spec, name))
  into.put('clusters', cluster, clientCluster({ ...spec, expect }, name, addresses))
  if (!isLookedUp(addresses)) into.put('endpoints', cluster, endpoints(cluster, addresses))
  const barred = isBarred ? ['nobody is called: whom it expects is on the deny-list'] : []
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
  const remarks = spec.outbound.flatMap((it, i) => addOutbound(into, it, dialled(it, i), situation))
  return {
    ...into.all,
    enforcement: new Map(inbound),
    remarks,
    changesAt: policies.changesAt,
  }
}

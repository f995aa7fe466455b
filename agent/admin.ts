// castellan.workload.v1.AgentAdmin: what a person at the node may ask.
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AgentAdmin, type AgentStatusSchema } from '../proto/gen/castellan/workload/v1/admin_pb.js'
import { type Service, service } from '../runtime/grpc/service.ts'
import { createLatest } from '../runtime/lifecycle.ts'
import type { Knowledge } from './knowledge.ts'
import type { Session } from './session.ts'
import type { Ledger } from './sidecar/ledger.ts'
import type { SvidCache } from './svid-cache.ts'

export interface AdminOptions {
  readonly knowledge: Knowledge
  readonly cache: SvidCache
  readonly ledger: Ledger
  readonly session: Session
}

export function adminService({
  knowledge,
  cache,
  ledger,
  session,
}: AdminOptions): Service<undefined> {
  function status(): MessageInitShape<typeof AgentStatusSchema> {
    const { svid, trouble } = session.status()
    const identities = [...cache.svids.values()].map((it) => ({
      spiffeId: it.id,
      entryId: it.entryId,
      serial: it.serial,
      notAfter: BigInt(it.notAfter),
      rotations: BigInt(it.rotations),
    }))
    const sidecars = [...ledger.sidecars].map(
      ({ id, pid, allowed, denied, vitals, acknowledged }) => ({
        spiffeId: id,
        pid,
        allowed,
        denied,
        acknowledgedVersion: acknowledged,
        ...(vitals === undefined ? {} : { vitals }),
      }),
    )
    return {
      agentId: svid?.id ?? '',
      agentSerial: svid?.serial ?? '',
      agentNotAfter: BigInt(svid?.notAfter ?? 0),
      connected: trouble === undefined,
      trouble: trouble ?? '',
      identities,
      sidecars,
      policyVersion: knowledge.policies()?.version ?? 0n,
    }
  }

  return service<typeof AgentAdmin, undefined>(AgentAdmin, {
    getStatus: () => status(),
    async *watchStatus(_, { signal }) {
      using wake = createLatest<true>(signal)
      using _knowledge = knowledge.onChange(() => wake.push(true))
      using _cache = cache.onChange(() => wake.push(true))
      using _ledger = ledger.onChange(() => wake.push(true))
      using _session = session.onChange(() => wake.push(true))
      wake.push(true)
      for await (const __ of wake) yield status()
      signal.throwIfAborted()
    },
    listDenials({ limit, source, destination }) {
      const found = ledger
        .denials()
        .filter(
          (it) =>
            (source === '' || it.source === source) &&
            (destination === '' || it.destination === destination),
        )
      return { denials: limit === 0 ? [...found] : found.slice(0, limit) }
    },
  })
}

// spire.api.server.debug.v1.Debug
import { Debug } from '../../proto/gen/spire/api/server/debug/v1/debug_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { spiffeIdOf } from '../../spiffe/id.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import { idToWire, secondsOf } from '../wire.ts'

/** The server's SVID is looked up as it was recorded: the newest of its ID. */
export function debugService({ trustDomain, clock, store, registry }: Authority): Service<Peer> {
  const started = clock.monotonic()
  const ownId = spiffeIdOf(trustDomain, '/spire/server')
  async function ownChain() {
    const { rows } = await store.issuance.list({ spiffeId: ownId, since: 0, limit: 1 })
    const [own] = rows
    if (own === undefined) return []
    const { notAfter } = parseCertificate(own.certificate)
    return [{ id: idToWire(ownId), expiresAt: secondsOf(notAfter), subject: '' }]
  }
  return service<typeof Debug, Peer>(Debug, {
    getInfo: async () => ({
      svidChain: await ownChain(),
      uptime: Math.floor((clock.monotonic() - started) / 1000),
      agentsCount: registry.agents.size,
      entriesCount: registry.entries.size,
      federatedBundlesCount: (await store.federation.bundles()).length,
    }),
  })
}

// spire.api.server.svid.v1.SVID
import { type NewX509SVIDParams, SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import type { Attested } from '../attestors/attestor.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import { namesInCsr } from '../csr-names.ts'
import { badRequest, svidToWire } from '../wire.ts'
import { ok, statusOfItem } from './status.ts'

const largestBatch = 500
// about 2 ms of signing: between slices other calls get their turn
const slice = 16

export function svidService(authority: Authority, log: Log): Service<Peer> {
  const { callers, registry } = authority

  async function issueOne({ entryId, csr }: NewX509SVIDParams, attested: Attested) {
    try {
      const svid = await authority.issue(csr, attested, { kind: 'entry', entryId })
      return { status: ok, svid: svidToWire(svid, registry.entries.get(entryId)?.hint) }
    } catch (error) {
      return { status: statusOfItem(error, log) }
    }
  }

  return service<typeof SVID, Peer>(SVID, {
    async batchNewX509SVID({ params }, context) {
      if (params.length > largestBatch)
        badRequest([{ field: 'params', problem: `more than ${largestBatch} items` }])
      const { attested } = callers.agent(context)
      const results: Awaited<ReturnType<typeof issueOne>>[] = []
      for (let at = 0; at < params.length; at += slice) {
        const part = params.slice(at, at + slice).map((it) => issueOne(it, attested))
        results.push(...(await Promise.all(part)))
      }
      return { results }
    },
    async mintX509SVID({ csr, ttl }, context) {
      if (ttl < 0) badRequest([{ field: 'ttl', problem: 'is negative' }])
      const { uris, dnsNames } = namesInCsr(csr)
      const [uri, ...others] = uris
      if (uri === undefined || others.length > 0) {
        throw new IdentityError(
          'ERR_CSR',
          `CSR refused: it asks for ${uris.length} URI names instead of one SPIFFE ID`,
        )
      }
      const wanted = {
        kind: 'mint',
        id: parseSpiffeId(uri),
        dnsNames,
        lifetime: ttl * 1000,
      } as const
      return {
        svid: svidToWire(await authority.issue(csr, callers.administrator(context), wanted)),
      }
    },
  })
}

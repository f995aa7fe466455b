// spire.api.server.svid.v1.SVID
import {
  type NewWITSVIDParams,
  type NewX509SVIDParams,
  SVID,
} from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import type { SPIFFEID } from '../../proto/gen/spire/api/types/spiffeid_pb.js'
import { type Implementation, type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import type { Attested } from '../attestors/attestor.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import { namesInCsr } from '../csr-names.ts'
import { jwtPurpose, witPurpose } from '../token-requests.ts'
import { badRequest, ownIdFromWire, svidToWire, tokenToWire } from '../wire.ts'
import { batch, bounded, ok, statusOfItem } from './status.ts'

const largestBatch = 500
// about 2 ms of signing: between slices other calls get their turn
const slice = 16

function ttlOf(ttl: number): number {
  return ttl < 0 ? badRequest([{ field: 'ttl', problem: 'is negative' }]) : ttl * 1000
}

/** What administrators may have signed, without an entry. */
function mintingOf(authority: Authority): Implementation<typeof SVID, Peer> {
  const { callers, trustDomain } = authority
  const ownId = (id: SPIFFEID | undefined) =>
    ownIdFromWire(id, 'id', trustDomain, { reserved: false })
  return {
    async mintX509SVID({ csr, ttl }, context) {
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
        lifetime: ttlOf(ttl),
      } as const
      return {
        svid: svidToWire(await authority.issue(csr, callers.administrator(context), wanted)),
      }
    },
    async mintJWTSVID({ id, audience, ttl }, context) {
      const attested = callers.administrator(context)
      const wanted = { kind: 'mint', id: ownId(id), token: 'jwt', lifetime: ttlOf(ttl) } as const
      return {
        svid: tokenToWire(await authority.issueToken(jwtPurpose(audience), attested, wanted)),
      }
    },
    async mintWITSVID({ id, ttl, ...holder }, context) {
      const attested = callers.administrator(context)
      const wanted = { kind: 'mint', id: ownId(id), token: 'wit', lifetime: ttlOf(ttl) } as const
      return { svid: tokenToWire(await authority.issueToken(witPurpose(holder), attested, wanted)) }
    },
  }
}

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

  async function issueWit(params: NewWITSVIDParams, at: string, attested: Attested) {
    const purpose = witPurpose(params, `${at}.`)
    const wanted = { kind: 'entry', entryId: params.entryId, token: 'wit' } as const
    return { svid: tokenToWire(await authority.issueToken(purpose, attested, wanted)) }
  }

  return service<typeof SVID, Peer>(SVID, {
    ...mintingOf(authority),
    async newJWTSVID({ entryId, audience }, context) {
      const { attested } = callers.agent(context)
      const wanted = { kind: 'entry', entryId, token: 'jwt' } as const
      return {
        svid: tokenToWire(await authority.issueToken(jwtPurpose(audience), attested, wanted)),
      }
    },
    async batchNewWITSVID({ params }, context) {
      bounded(params, 'params', largestBatch)
      const { attested } = callers.agent(context)
      const one = (it: NewWITSVIDParams, at: string) => issueWit(it, at, attested)
      return { results: await batch(params, { field: 'params', log }, one) }
    },
    async newDownstreamX509CA({ csr, preferredTtl }, context) {
      const entry = callers.downstream(context)
      const wanted = ttlOf(preferredTtl)
      return {
        caCertChain: [await authority.issueDownstream(csr, { entry, wanted })],
        x509Authorities: authority.authorities.all().map(({ material }) => material),
      }
    },
    async batchNewX509SVID({ params }, context) {
      bounded(params, 'params', largestBatch)
      const { attested } = callers.agent(context)
      const results: Awaited<ReturnType<typeof issueOne>>[] = []
      for (let at = 0; at < params.length; at += slice) {
        const part = params.slice(at, at + slice).map((it) => issueOne(it, attested))
        results.push(...(await Promise.all(part)))
      }
      return { results }
    },
  })
}

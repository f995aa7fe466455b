// spire.api.server.trustdomain.v1.TrustDomain: relationships are kept and served here; their bundles are
// fetched by ca/bundle-fetching.ts, and here when somebody asks for it.
import { TrustDomain } from '../../proto/gen/spire/api/server/trustdomain/v1/trustdomain_pb.js'
import type {
  FederationRelationship,
  FederationRelationshipMask,
} from '../../proto/gen/spire/api/types/federationrelationship_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import {
  bundleFromWire,
  foreignFromWire,
  relationshipFromWire,
  relationshipToWire,
} from '../federation.ts'
import type { RelationshipRow } from '../store/model.ts'
import { badRequest } from '../wire.ts'
import { pageOf } from './page.ts'
import { batch } from './status.ts'

const field = 'federation_relationships'

interface Writing {
  readonly before: 'absent' | 'present'
  readonly input?: FederationRelationshipMask | undefined
  readonly output: FederationRelationshipMask | undefined
}

export function trustDomainService(authority: Authority, log: Log): Service<Peer> {
  const { trustDomain: own } = authority
  const { federation } = authority.store

  async function found(name: string): Promise<RelationshipRow> {
    const foreign = foreignFromWire(name, 'trust_domain', own)
    const relationship = await federation.relationship(foreign)
    if (relationship !== undefined) return relationship
    throw new IdentityError('ERR_NOT_FOUND', `no relationship with trust domain ${foreign}`)
  }

  const toWire = async (row: RelationshipRow, mask?: FederationRelationshipMask) =>
    relationshipToWire(row, await federation.bundle(row.trustDomain), mask)

  /** A bundle that comes with a relationship is the first one; later ones are fetched. */
  function bundleIn(message: FederationRelationship, of: RelationshipRow, at: string) {
    const { trustDomainBundle } = message
    if (trustDomainBundle === undefined) return undefined
    const field = `${at}.trust_domain_bundle`
    const bundle = bundleFromWire(trustDomainBundle, own, field)
    if (bundle.trustDomain === of.trustDomain) return bundle
    return badRequest([{ field, problem: `is of ${bundle.trustDomain}, not of ${of.trustDomain}` }])
  }

  async function write(
    message: FederationRelationship,
    at: string,
    { before, input, output }: Writing,
  ) {
    const known = before === 'present' ? await found(message.trustDomain) : undefined
    const row = relationshipFromWire(message, { own, at, known, mask: input })
    const bundle = input?.trustDomainBundle === false ? undefined : bundleIn(message, row, at)
    await federation.setRelationship(row, before, bundle)
    return { federationRelationship: await toWire(row, output) }
  }

  return service<typeof TrustDomain, Peer>(TrustDomain, {
    async listFederationRelationships({ outputMask, pageSize, pageToken }) {
      const all = (await federation.relationships()).map((row) => ({ id: row.trustDomain, row }))
      const { items, nextPageToken } = pageOf(all, pageSize, pageToken)
      const page = items.map(({ row }) => toWire(row, outputMask))
      return { federationRelationships: await Promise.all(page), nextPageToken }
    },
    getFederationRelationship: async ({ trustDomain, outputMask }) =>
      toWire(await found(trustDomain), outputMask),
    async batchCreateFederationRelationship({ federationRelationships, outputMask: output }) {
      const how = { before: 'absent', output } as const
      const one = (message: FederationRelationship, at: string) => write(message, at, how)
      return { results: await batch(federationRelationships, { field, log }, one) }
    },
    async batchUpdateFederationRelationship({ federationRelationships, ...masks }) {
      const { inputMask: input, outputMask: output } = masks
      const how = { before: 'present', input, output } as const
      const one = (message: FederationRelationship, at: string) => write(message, at, how)
      return { results: await batch(federationRelationships, { field, log }, one) }
    },
    async batchDeleteFederationRelationship({ trustDomains }) {
      const results = await batch(trustDomains, { field: 'trust_domains', log }, async (name) => {
        await federation.deleteRelationship((await found(name)).trustDomain)
        return {}
      })
      return { results: results.map((it, i) => ({ ...it, trustDomain: trustDomains[i] ?? '' })) }
    },
    async refreshBundle({ trustDomain }, { signal }) {
      await authority.foreignBundles.refresh(await found(trustDomain), { signal })
      return {}
    },
  })
}

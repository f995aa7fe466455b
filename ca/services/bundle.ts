// spire.api.server.bundle.v1.Bundle
import {
  Bundle,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import type {
  BundleMask,
  Bundle as BundleMessage,
} from '../../proto/gen/spire/api/types/bundle_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import type { Log } from '../../runtime/log.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import {
  bundleFromWire,
  federatedBundleToWire,
  foreignFromWire,
  maskedBundle,
  updatedBundle,
} from '../federation.ts'
import type { FederatedBundleRow } from '../store/model.ts'
import { badRequest, bundleToWire } from '../wire.ts'
import { adopting } from './adopted.ts'
import { pageOf } from './page.ts'
import { batch } from './status.ts'

const modes: Readonly<Record<number, 'restrict' | 'delete' | 'dissociate'>> = {
  [Mode.RESTRICT]: 'restrict',
  [Mode.DELETE]: 'delete',
  [Mode.DISSOCIATE]: 'dissociate',
}

export function bundleService(authority: Authority, log: Log): Service<Peer> {
  const { trustDomain, authorities, acknowledgements } = authority
  const { federation } = authority.store

  async function found(name: string): Promise<FederatedBundleRow> {
    const foreign = foreignFromWire(name, 'trust_domain', trustDomain)
    const bundle = await federation.bundle(foreign)
    if (bundle !== undefined) return bundle
    throw new IdentityError('ERR_NOT_FOUND', `no bundle of trust domain ${foreign}`)
  }

  /** Writes all bundles, each with a status of its own. */
  async function writeAll(
    {
      bundle,
      outputMask,
    }: { bundle: readonly BundleMessage[]; outputMask?: BundleMask | undefined },
    write: (row: FederatedBundleRow) => Promise<FederatedBundleRow>,
  ) {
    const one = async (message: BundleMessage, at: string) => {
      const row = await write(bundleFromWire(message, trustDomain, at))
      return { bundle: maskedBundle(federatedBundleToWire(row), outputMask) }
    }
    return { results: await batch(bundle, { field: 'bundle', log }, one) }
  }

  const setting = (before: 'absent' | 'any') => async (row: FederatedBundleRow) => {
    await federation.setBundle(row, before)
    return row
  }

  return service<typeof Bundle, Peer>(Bundle, {
    countBundles: async () => ({ count: 1 + (await federation.bundles()).length }),
    getBundle({ outputMask }, { peer }) {
      // a stock agent says nothing of what it has put to use
      if (peer.kind === 'svid') acknowledgements.answered(peer.id, authorities.sequence)
      return maskedBundle(bundleToWire(trustDomain, authorities), outputMask)
    },
    ...adopting(authority, log),
    async listFederatedBundles({ outputMask, pageSize, pageToken }) {
      const all = (await federation.bundles()).map((row) => ({ id: row.trustDomain, row }))
      const { items, nextPageToken } = pageOf(all, pageSize, pageToken)
      const bundles = items.map(({ row }) => maskedBundle(federatedBundleToWire(row), outputMask))
      return { bundles, nextPageToken }
    },
    getFederatedBundle: async ({ trustDomain: name, outputMask }) =>
      maskedBundle(federatedBundleToWire(await found(name)), outputMask),
    batchCreateFederatedBundle: (request) => writeAll(request, setting('absent')),
    batchSetFederatedBundle: (request) => writeAll(request, setting('any')),
    batchUpdateFederatedBundle: (request) =>
      writeAll(request, async (row) => {
        const next = updatedBundle(await found(row.trustDomain), row, request.inputMask)
        await federation.setBundle(next, 'present')
        return next
      }),
    async batchDeleteFederatedBundle({ trustDomains, mode }) {
      const how = modes[mode] ?? badRequest([{ field: 'mode', problem: `unknown mode ${mode}` }])
      const results = await batch(
        trustDomains,
        { field: 'trust_domains', log },
        async (name, at) => {
          await federation.deleteBundle(foreignFromWire(name, at, trustDomain), how)
          return {}
        },
      )
      return { results: results.map((it, i) => ({ ...it, trustDomain: trustDomains[i] ?? '' })) }
    },
  })
}

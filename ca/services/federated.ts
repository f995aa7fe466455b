// The bundles of other trust domains as agents get them: read once after each change, not once for each agent.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { BundleSchema } from '../../proto/gen/spire/api/types/bundle_pb.js'
import type { Authority } from '../authority.ts'
import { federatedBundleToWire } from '../federation.ts'

type BundleInit = MessageInitShape<typeof BundleSchema> & object

export interface Federated extends Disposable {
  /** Those of `trustDomains` that are stored, in the order of their names. */
  of(trustDomains: ReadonlySet<string>): Promise<BundleInit[]>
}

export function openFederated({ registry, store }: Authority): Federated {
  const known = new Map<string, Promise<BundleInit | undefined>>()
  const following = registry.subscribe((change) => {
    if (change.kind === 'federation') known.delete(change.trustDomain)
  })

  async function read(trustDomain: string): Promise<BundleInit | undefined> {
    const row = await store.federation.bundle(trustDomain)
    return row && federatedBundleToWire(row)
  }

  function bundleOf(trustDomain: string): Promise<BundleInit | undefined> {
    const cached = known.get(trustDomain)
    if (cached !== undefined) return cached
    const reading = read(trustDomain)
    known.set(trustDomain, reading)
    // one that failed is read again
    reading.catch(() => {
      if (known.get(trustDomain) === reading) known.delete(trustDomain)
    })
    return reading
  }

  return {
    async of(trustDomains) {
      const bundles = await Promise.all([...trustDomains].sort().map(bundleOf))
      return bundles.filter((bundle) => bundle !== undefined)
    },
    [Symbol.dispose]: () => following[Symbol.dispose](),
  }
}

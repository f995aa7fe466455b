// The X.509 profile of the Workload API (§5): SVIDs with their keys, and bundles with their CRLs.
import { hash } from 'node:crypto'
import { create, toBinary } from '@bufbuild/protobuf'
import {
  X509BundlesResponseSchema,
  X509SVIDResponseSchema,
} from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { bundleToDer } from '../../spiffe/bundle.ts'
import type { TrustDomain } from '../../spiffe/id.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { SvidCache } from '../svid-cache.ts'
import type { Trust } from '../trust.ts'
import { type Answer, federatedWith, hintsOf } from './entitled.ts'

export interface X509Answers {
  svids(entries: readonly AgentEntry[]): Answer | undefined
  bundles(entries: readonly AgentEntry[]): Answer
}

function digestOf(parts: readonly Uint8Array[]): string {
  return parts.length === 0 ? '' : hash('sha256', Buffer.concat(parts), 'base64')
}

/** One word for the content of each value, computed once. */
function createDigests<T extends object>(parts: (value: T) => readonly Uint8Array[]) {
  const known = new WeakMap<T, string>()
  return (value: T): string => {
    const digest = known.get(value) ?? digestOf(parts(value))
    known.set(value, digest)
    return digest
  }
}

export function x509Answers(knowledge: Knowledge, cache: SvidCache): X509Answers {
  const crlsDigest = createDigests<readonly Uint8Array[]>((crls) => crls)
  const rootsDigest = createDigests<Trust>(({ x509 }) => x509.authorities.map(({ der }) => der))
  type Federated = readonly (readonly [TrustDomain, Trust])[]

  /** of what goes along with every answer */
  function trustVersion(federated: Federated): string {
    const others = federated.map(([name, trust]) => `${name}=${rootsDigest(trust)}`)
    const own = rootsDigest(knowledge.own())
    return [own, ...others, crlsDigest(knowledge.revocation().crls)].join(' ')
  }

  const bundleMap = (federated: Federated) =>
    Object.fromEntries(federated.map(([name, { x509 }]) => [`spiffe://${name}`, bundleToDer(x509)]))

  return {
    svids(entries) {
      for (const entry of entries) if (!cache.svids.has(entry.id)) cache.want(entry)
      const svids = entries.flatMap(({ id }) => cache.svids.get(id) ?? [])
      if (svids.length === 0) return undefined
      const federated = federatedWith(entries, knowledge)
      const hints = hintsOf(entries)
      const names = svids.map(({ entryId, serial }) => `${entryId}=${serial}=${hints.get(entryId)}`)
      const encode = () => {
        const bundle = bundleToDer(knowledge.bundle())
        const message = create(X509SVIDResponseSchema, {
          svids: svids.map(({ entryId, id, chain, key }) => ({
            spiffeId: id,
            x509Svid: chain,
            x509SvidKey: key,
            bundle,
            hint: hints.get(entryId) ?? '',
          })),
          crl: [...knowledge.revocation().crls],
          federatedBundles: bundleMap(federated),
        })
        return toBinary(X509SVIDResponseSchema, message)
      }
      return { version: `svid ${names.join()} ${trustVersion(federated)}`, encode }
    },
    bundles(entries) {
      const federated = federatedWith(entries, knowledge)
      const encode = () => {
        const own = [knowledge.bundle().trustDomain, knowledge.own()] as const
        const message = create(X509BundlesResponseSchema, {
          bundles: bundleMap([own, ...federated]),
          crl: [...knowledge.revocation().crls],
        })
        return toBinary(X509BundlesResponseSchema, message)
      }
      return { version: `bundle ${trustVersion(federated)}`, encode }
    },
  }
}

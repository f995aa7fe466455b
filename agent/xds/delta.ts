// The incremental variant of xDS for one type on one stream: what the client has, what it is told.
import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponseSchema,
} from '../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import type { Protocol } from './converse.ts'
import { boundNames, type Offer, versionOf } from './resource.ts'

export type Delta = Protocol<
  DeltaDiscoveryRequest,
  MessageInitShape<typeof DeltaDiscoveryResponseSchema>
>

/** of no resource: whoever has it is told again */
const unknown = ''

export function delta(typeUrl: string): Delta {
  const names = new Set<string>()
  let everything = false
  let isFirst = true
  /** names and versions that the client has, or has refused */
  const known = new Map<string, string>()
  /** names of which the client knows that they are not to be had */
  const toldAbsent = new Set<string>()
  let nonce = ''
  let isSettled = true
  let hasAnswered = false

  function subscribe(name: string): void {
    if (name === '*') everything = true
    if (name === '*' || name === '') return
    names.add(name)
    toldAbsent.delete(name)
    // asked for anew is sent again, though it is what it was; a client that comes back says what it has
    if (!isFirst) known.delete(name)
    boundNames(names)
  }

  function unsubscribe(name: string): void {
    if (name === '*') {
      everything = false
      for (const other of [...known.keys()]) if (!names.has(other)) known.delete(other)
    } else if (names.delete(name)) {
      toldAbsent.delete(name)
      // under the wildcard its client is told what it still is, or that it is no more
      if (everything) known.set(name, unknown)
      else known.delete(name)
    }
  }

  function begin({ initialResourceVersions, resourceNamesSubscribe }: DeltaDiscoveryRequest): void {
    everything = resourceNamesSubscribe.length === 0
    const isWanted = (name: string) =>
      everything || resourceNamesSubscribe.some((it) => it === name || it === '*')
    for (const [name, version] of Object.entries(initialResourceVersions))
      if (isWanted(name)) known.set(name, version)
  }

  function removed({ resources, pending, absent }: Offer): string[] {
    const gone = [...known.keys()].filter((name) => !resources.has(name) && !pending.has(name))
    const news = [...absent.keys()].filter((name) => !toldAbsent.has(name))
    return [...new Set([...gone, ...news])]
  }

  return {
    hear(request) {
      if (isFirst) begin(request)
      for (const name of request.resourceNamesUnsubscribe) unsubscribe(name)
      for (const name of request.resourceNamesSubscribe) subscribe(name)
      isFirst = false
      if (request.responseNonce === nonce) isSettled = true
      return request.errorDetail
    },
    wanted: () => (isFirst ? undefined : { names, everything }),
    tell(offer) {
      const changed = [...offer.resources.values()].filter(
        ({ name, version }) => known.get(name) !== version,
      )
      const removedResources = removed(offer)
      for (const name of removedResources) known.delete(name)
      toldAbsent.clear()
      for (const name of offer.absent.keys()) toldAbsent.add(name)
      const isFirstWord = !hasAnswered && everything && offer.isWhole === true
      if (changed.length + removedResources.length === 0 && !isFirstWord) return undefined
      for (const { name, version } of changed) known.set(name, version)
      const resources = changed.map(({ pack, ...it }) => ({ ...it, resource: pack() }))
      const systemVersionInfo = versionOf(offer)
      nonce = randomUUID()
      hasAnswered = true
      isSettled = false
      return { systemVersionInfo, resources, removedResources, typeUrl, nonce }
    },
    forget: (name) => void known.delete(name),
    isSettled: () => isSettled,
  }
}

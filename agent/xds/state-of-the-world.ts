// The state-of-the-world variant of xDS for one type on one stream: what was asked, what was told.
import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type {
  DiscoveryRequest,
  DiscoveryResponseSchema,
} from '../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import type { Protocol } from './converse.ts'
import { boundNames, type Offer, versionOf, type Wanted } from './resource.ts'

export type StateOfTheWorld = Protocol<
  DiscoveryRequest,
  MessageInitShape<typeof DiscoveryResponseSchema>
>

export function stateOfTheWorld(typeUrl: string): StateOfTheWorld {
  let wanted: Wanted | undefined
  /** names and versions that the client has from here, or has refused */
  const sent = new Map<string, string>()
  let nonce = ''
  let isSettled = true
  /** whether all requests so far were without names */
  let isNameless = true

  /** No names are everything; but once there was a name, they are nothing. */
  function wantedBy({ resourceNames }: DiscoveryRequest): Wanted {
    const names = new Set(resourceNames)
    boundNames(names)
    names.delete('')
    isNameless &&= names.size === 0
    const isWildcard = names.delete('*')
    return { names, everything: isWildcard || isNameless }
  }

  /** What is newly named is sent again, though it is what it was. */
  function want(next: Wanted): void {
    const before = wanted
    wanted = next
    if (before?.everything !== next.everything) sent.clear()
    for (const name of next.names.symmetricDifference(before?.names ?? new Set<string>()))
      sent.delete(name)
  }

  function isNews({ resources, isWhole }: Offer): boolean {
    if (nonce === '' && wanted?.everything === true && isWhole === true) return true
    const isGone = (name: string) => !resources.has(name)
    // of names that were given absence says something only where an answer is all there is
    const isComplete = wanted?.everything === true || isWhole === true
    if (isComplete && [...sent.keys()].some(isGone)) return true
    return [...resources.values()].some(({ name, version }) => sent.get(name) !== version)
  }

  return {
    hear(request) {
      const { responseNonce, errorDetail } = request
      // said before the last response was read: what it says is said again with the answer to that
      if (nonce !== '' && responseNonce !== '' && responseNonce !== nonce) return undefined
      isSettled = true
      want(wantedBy(request))
      return errorDetail
    },
    wanted: () => wanted,
    tell(offer) {
      if (!isNews(offer)) return undefined
      sent.clear()
      for (const { name, version } of offer.resources.values()) sent.set(name, version)
      nonce = randomUUID()
      isSettled = false
      const resources = [...offer.resources.values()].map(({ pack }) => pack())
      return { versionInfo: versionOf(offer), resources, typeUrl, nonce }
    },
    forget: (name) => void sent.delete(name),
    isSettled: () => isSettled,
  }
}

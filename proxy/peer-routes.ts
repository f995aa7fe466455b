// The routes of one outbound listener: one to each endpoint, for the identity in use.
import type { Socket } from 'node:net'
import { type Address, addressText } from '../runtime/config.ts'
import type { Matcher } from '../spiffe/match.ts'
import type { Core } from './core.ts'
import { type PeerRoute, peerRoute } from './peer-route.ts'
import { createSlots } from './slots.ts'

export interface PeerRoutes extends Disposable {
  /** undefined while there is no identity */
  to(address: Address): PeerRoute | undefined
  /** The endpoint is none any more: what is under way to it finishes. */
  retire(key: string): void
}

export interface PeerRoutesOptions {
  readonly expect: Matcher
  /** connections at once */
  readonly most: number
  /** whether nothing is under way to an endpoint */
  readonly isIdle: (key: string) => boolean
}

export function createPeerRoutes(
  core: Core,
  { expect, most, isIdle }: PeerRoutesOptions,
): PeerRoutes {
  const routes = new Map<string, PeerRoute>()

  function dropIdle(): Socket | undefined {
    for (const [key, route] of routes) {
      const dropped = route.dropIdle(isIdle(key))
      if (dropped !== undefined) return dropped
    }
    return undefined
  }

  const slots = createSlots(most, dropIdle)
  const retireAll = () => {
    for (const route of routes.values()) route.retire()
    routes.clear()
  }
  const subscription = core.identities.subscribe(retireAll)
  return {
    to(address) {
      const identity = core.identities.current()
      if (identity === undefined) return undefined
      const key = addressText(address)
      const known = routes.get(key)
      if (known !== undefined) return known
      const route = peerRoute(core, identity, { address, expect, slots })
      routes.set(key, route)
      return route
    },
    retire(key) {
      routes.get(key)?.retire()
      routes.delete(key)
    },
    [Symbol.dispose]() {
      subscription[Symbol.dispose]()
      retireAll()
    },
  }
}

// The endpoints of one outbound listener: what is under way to each, which of them are left out, which is next.
import type { OutboundSpec } from '../proxy-spec/outbound.ts'
import { type Address, addressText } from '../runtime/config.ts'
import { chooseBy } from './balancing.ts'
import { createEjections } from './outliers.ts'

export interface Endpoint {
  /** of its address */
  readonly key: string
  readonly address: Address
  /** requests, or connections of bytes */
  readonly inFlight: number
}

/** Something under way to one endpoint. */
export interface Use extends Disposable {
  readonly endpoint: Endpoint
  /** How it went, as far as that is the endpoint's; true when the endpoint is left out from now on. */
  judge(isWell: boolean): boolean
}

export interface Endpoints {
  /** What is known of those that stay is kept; the keys of those that went. */
  put(addresses: readonly Address[]): readonly string[]
  /** The next one, not of `tried` if there is another; undefined when there is none at all. */
  use(tried: ReadonlySet<string>): Use | undefined
  hasOther(tried: ReadonlySet<string>): boolean
  inFlight(key: string): number
}

export interface EndpointsOptions {
  readonly spec: Pick<OutboundSpec, 'loadBalancing' | 'outliers'>
  readonly now: () => number
  readonly random: () => number
}

interface Counted extends Endpoint {
  inFlight: number
}

export function createEndpoints({ spec, now, random }: EndpointsOptions): Endpoints {
  let known = new Map<string, Counted>()
  const choose = chooseBy(spec.loadBalancing, random)
  const ejections =
    spec.outliers && createEjections({ spec: spec.outliers, now, count: () => known.size })

  /** Those that are not left out; all of them when none is left: trying is better than not to. */
  function available(): readonly Counted[] {
    const all = [...known.values()]
    if (ejections === undefined) return all
    const left = all.filter(({ key }) => !ejections.isOut(key))
    return left.length === 0 ? all : left
  }

  function useOf(endpoint: Counted): Use {
    let isOver = false
    endpoint.inFlight++
    return {
      endpoint,
      // what becomes of one that went meanwhile concerns nobody
      judge: (isWell) =>
        known.get(endpoint.key) === endpoint && (ejections?.judge(endpoint.key, isWell) ?? false),
      [Symbol.dispose]() {
        if (!isOver) endpoint.inFlight--
        isOver = true
      },
    }
  }

  return {
    put(addresses) {
      const former = known
      known = new Map()
      for (const address of addresses) {
        const key = addressText(address)
        known.set(key, former.get(key) ?? { key, address, inFlight: 0 })
      }
      const gone = [...former.keys()].filter((key) => !known.has(key))
      for (const key of gone) ejections?.forget(key)
      return gone
    },
    use(tried) {
      const all = available()
      const others = tried.size === 0 ? all : all.filter(({ key }) => !tried.has(key))
      const chosen = choose(others.length === 0 ? all : others)
      return chosen && useOf(chosen)
    },
    hasOther: (tried) => available().some(({ key }) => !tried.has(key)),
    inFlight: (key) => known.get(key)?.inFlight ?? 0,
  }
}

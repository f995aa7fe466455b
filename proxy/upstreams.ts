// Where an outbound listener leads: its endpoints as the spec or the agent names them, how often and how many at once
// they are asked.
import { endpointsFor } from '../proxy-spec/endpoint.ts'
import type { OutboundSpec } from '../proxy-spec/outbound.ts'
import type { Address } from '../runtime/config.ts'
import { createBudget } from './budget.ts'
import type { Core } from './core.ts'
import { createEndpoints } from './endpoints.ts'
import type { Again, Onward } from './onward.ts'

export interface Upstreams<R> extends Disposable {
  readonly onward: Onward<R>
  /** whether nothing is under way to an endpoint */
  isIdle(key: string): boolean
}

export interface UpstreamsOptions<R> {
  /** undefined while there is no identity */
  readonly routeTo: (address: Address) => R | undefined
  /** told of each endpoint that is none any more */
  readonly onGone: (key: string) => void
  /** uniform in [0, 1); a seam for tests */
  readonly random?: () => number
}

type Part = Pick<Core, 'mesh' | 'clock' | 'log'>

const nowhere: readonly Address[] = []

export function createUpstreams<R>(
  { mesh, clock, log }: Part,
  spec: OutboundSpec,
  { routeTo, onGone, random = Math.random }: UpstreamsOptions<R>,
): Upstreams<R> {
  const { destination, service = '', expect, retries, timeout } = spec
  const endpoints = createEndpoints({ spec, now: () => clock.monotonic(), random })
  const budget = createBudget(spec.limits.requests)
  let known: readonly Address[] = nowhere

  function refresh(): void {
    const told = destination ?? mesh.current().endpoints.get(service) ?? nowhere
    if (told === known) return
    known = told
    for (const key of endpoints.put(endpointsFor(told, expect))) onGone(key)
  }

  const again: Again = {
    ...{ retries, random, take: budget.again },
    hasOther: (tried) => endpoints.hasOther(tried),
  }
  const subscription = mesh.subscribe(refresh)
  refresh()
  return {
    onward: {
      again: retries.attempts === 0 ? undefined : again,
      timeout,
      enter: () => budget.enter() ?? { status: 503, text: 'too many requests under way' },
      attempt(tried) {
        refresh()
        const use = endpoints.use(tried)
        if (use === undefined) return { status: 502, text: `no endpoint of service ${service}` }
        const { key, address } = use.endpoint
        const route = routeTo(address)
        if (route === undefined) {
          use[Symbol.dispose]()
          return { status: 502, text: 'no identity at present' }
        }
        return {
          ...{ route, key },
          judge(isWell) {
            if (use.judge(isWell)) log.warn({ endpoint: key }, 'endpoint left out for a while')
          },
          [Symbol.dispose]: () => use[Symbol.dispose](),
        }
      },
    },
    isIdle: (key) => endpoints.inFlight(key) === 0,
    [Symbol.dispose]: () => subscription[Symbol.dispose](),
  }
}

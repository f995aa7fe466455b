// Where services are reached: what agents say of the proxies of their nodes. An endpoint is bound to the identity
// that serves it, which has to be one that the agent may have; it goes some time after its agent has.

import type { Clock } from '../runtime/clock.ts'
import { address } from '../runtime/config.ts'
import type { Log } from '../runtime/log.ts'
import { isSpiffeId, type SpiffeId } from '../spiffe/id.ts'
import type { Acknowledgements } from './acknowledgements.ts'
import type { Registry } from './registry.ts'
import type { AgentRow } from './store/model.ts'
import type { ServiceEndpoint } from './store/said.ts'
import type { Store } from './store/store.ts'

/** As it came: nothing of it is believed yet. */
export interface SaidEndpoint {
  readonly service: string
  readonly spiffeId: string
  readonly address: string
}

export interface Endpoints {
  /** An agent follows this replica. */
  opened(agentId: SpiffeId): void
  /** It does not any more. */
  closed(agentId: SpiffeId): void
  /** What its node serves; with `isWhole` that is all. Resolves once it is stored. */
  said(agent: AgentRow, endpoints: readonly SaidEndpoint[], isWhole: boolean): Promise<void>
  /** Of these services, by name and address. */
  of(services: ReadonlySet<string>): readonly ServiceEndpoint[]
  /** Whether that agent's node serves one of these, as far as it said. */
  isServedBy(agentId: string, services: ReadonlySet<string>): boolean
  /** Forgets what those serve that have been away for too long. */
  keep(): Promise<void>
}

export interface EndpointsOptions {
  readonly store: Pick<Store, 'endpoints' | 'isShared'>
  readonly registry: Pick<Registry, 'endpoints' | 'agents' | 'entries'>
  readonly acknowledgements: Pick<Acknowledgements, 'connected'>
  readonly clock: Clock
  readonly log: Log
}

/** milliseconds: an agent that restarts, or goes to another replica, is back by then */
const grace = 30_000
const mostEndpoints = 1000
const serviceName = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/

const keyOf = ({ service, spiffeId, address: where }: SaidEndpoint) =>
  `${service} ${where} ${spiffeId}`

/** One place each, in one order. */
function distinct(endpoints: readonly ServiceEndpoint[]): ServiceEndpoint[] {
  const byKey = new Map(endpoints.map((it) => [keyOf(it), it]))
  return [...byKey].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, it]) => it)
}

/** What the agent may say, of what it says. */
function believed(
  agent: AgentRow,
  endpoints: readonly SaidEndpoint[],
  { registry, clock, log }: EndpointsOptions,
): ServiceEndpoint[] {
  const own = new Set<string>(
    registry.entries.authorized(agent, clock.now()).map(({ spiffeId }) => spiffeId),
  )
  const isGood = ({ service, spiffeId, address: where }: SaidEndpoint) =>
    own.has(spiffeId) && serviceName.test(service) && address.safeParse(where).success
  const [first] = endpoints.filter((it) => !isGood(it))
  if (first !== undefined)
    log.warn({ agentId: agent.id, endpoint: first }, 'an endpoint that the agent may not serve')
  return endpoints
    .filter(isGood)
    .slice(0, mostEndpoints)
    .flatMap(({ service, spiffeId, address: where }) =>
      isSpiffeId(spiffeId) ? [{ service, spiffeId, address: where }] : [],
    )
}

export function createEndpoints(options: EndpointsOptions): Endpoints {
  const { store, registry, acknowledgements, clock, log } = options
  /** since when, of agents that this replica heard last; a clock that nobody sets */
  const away = new Map<SpiffeId, number>()
  const here = new Map<SpiffeId, number>()
  const turns = new Map<SpiffeId, Promise<void>>()

  async function write(agentId: SpiffeId, next: readonly ServiceEndpoint[]): Promise<void> {
    const before = registry.endpoints.get(agentId) ?? []
    const endpoints = distinct(next)
    if (JSON.stringify(endpoints) === JSON.stringify(before)) return
    await store.endpoints.put({ agentId, endpoints })
    log.info({ agentId, endpoints: endpoints.length }, 'endpoints changed')
  }

  /** One after the other, for each agent. */
  function inTurn(agentId: SpiffeId, work: () => Promise<void>): Promise<void> {
    const turn = (turns.get(agentId) ?? Promise.resolve()).catch(() => {}).then(work)
    turns.set(agentId, turn)
    return turn.finally(() => {
      if (turns.get(agentId) === turn) turns.delete(agentId)
    })
  }

  return {
    opened(agentId) {
      here.set(agentId, (here.get(agentId) ?? 0) + 1)
      away.delete(agentId)
    },
    closed(agentId) {
      const streams = (here.get(agentId) ?? 1) - 1
      if (streams > 0) here.set(agentId, streams)
      else {
        here.delete(agentId)
        away.set(agentId, clock.monotonic())
      }
    },
    said: (agent, endpoints, isWhole) =>
      inTurn(agent.id, async () => {
        const before = isWhole ? [] : (registry.endpoints.get(agent.id) ?? [])
        await write(agent.id, [...before, ...believed(agent, endpoints, options)])
      }),
    of(services) {
      const all = [...registry.endpoints].flatMap(([agentId, endpoints]) =>
        registry.agents.get(agentId)?.banned === false
          ? endpoints.filter(({ service }) => services.has(service))
          : [],
      )
      return distinct(all)
    },
    isServedBy: (agentId, services) =>
      isSpiffeId(agentId) &&
      (registry.endpoints.get(agentId) ?? []).some(({ service }) => services.has(service)),
    async keep() {
      const now = clock.monotonic()
      const connected = new Set(await acknowledgements.connected())
      for (const agentId of registry.endpoints.keys()) {
        if (here.has(agentId)) continue
        // nobody heard it for a while, or this replica saw it go: another one may have it
        if (!connected.has(agentId) && !away.has(agentId)) away.set(agentId, now)
        const since = away.get(agentId)
        if (since === undefined || now - since < grace) continue
        if (store.isShared && connected.has(agentId) && now - since < 2 * grace) continue
        away.delete(agentId)
        await inTurn(agentId, () => write(agentId, []))
      }
    },
  }
}

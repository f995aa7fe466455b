// What the authority knows, in memory: entries, agents, policies, the deny-list. The store is the truth; this follows
// its events after each commit, so hot reads never touch the disk.
import { createTopic } from '../runtime/lifecycle.ts'
import { createDenyList, type DenyList } from '../spiffe/deny-list.ts'
import { isSpiffeId, type SpiffeId, type TrustDomain } from '../spiffe/id.ts'
import { createEntryIndex, type EntryIndex } from './entry-index.ts'
import {
  type AgentRow,
  type DenyRuleRow,
  type EntryRow,
  type Event,
  listsChanged,
  type StoredPolicies,
} from './store/model.ts'
import type { EndpointsRow, ServiceEndpoint } from './store/said.ts'
import type { Store } from './store/store.ts'

export type Change =
  | {
      readonly kind: 'entry'
      readonly before: EntryRow | undefined
      readonly after: EntryRow | undefined
    }
  | { readonly kind: 'agent'; readonly id: string; readonly after: AgentRow | undefined }
  | { readonly kind: 'policies' }
  | { readonly kind: 'bundle' }
  | { readonly kind: 'deny' }
  | { readonly kind: 'federation'; readonly trustDomain: string }
  /** names of the services whose endpoints are others now */
  | { readonly kind: 'endpoints'; readonly services: ReadonlySet<string> }

export interface Registry extends Disposable {
  readonly entries: EntryIndex
  readonly agents: Map<SpiffeId, AgentRow>
  readonly policies: () => StoredPolicies
  readonly denyRules: () => readonly DenyRuleRow[]
  /** the same, to ask */
  readonly denyList: () => DenyList
  /** what the nodes of agents serve */
  readonly endpoints: ReadonlyMap<SpiffeId, readonly ServiceEndpoint[]>
  /** Called after this registry has taken a change in. */
  subscribe(listener: (change: Change) => void): Disposable
}

/** What a store says of the keys in some events. */
interface Fresh {
  readonly entries: ReadonlyMap<string, EntryRow>
  readonly agents: ReadonlyMap<string, AgentRow>
  readonly policies: StoredPolicies | undefined
  readonly denyRules: readonly DenyRuleRow[] | undefined
  readonly endpoints: ReadonlyMap<string, EndpointsRow>
}

/** The rules stay what they are when CRLs were signed. */
const onlyLists: ReadonlySet<string> = new Set([listsChanged])

async function freshFor(events: readonly Event[], store: Store): Promise<Fresh> {
  const keysOf = (wanted: Event['kind']) =>
    new Set(events.filter(({ kind }) => kind === wanted).map(({ key }) => key))
  const ids = [...keysOf('entry')]
  const entries = ids.length === 0 ? [] : await store.entries.some(ids)
  const agents = new Map<string, AgentRow>()
  for (const id of keysOf('agent')) {
    const agent = await store.agents.get(id)
    if (agent !== undefined) agents.set(id, agent)
  }
  const endpoints = new Map<string, EndpointsRow>()
  for (const id of keysOf('endpoints')) {
    const row = isSpiffeId(id) ? await store.endpoints.get(id) : undefined
    if (row !== undefined) endpoints.set(id, row)
  }
  return {
    entries: new Map(entries.map((entry) => [entry.id, entry])),
    agents,
    endpoints,
    policies: keysOf('policies').size > 0 ? await store.policies.current() : undefined,
    denyRules:
      keysOf('deny').difference(onlyLists).size > 0 ? await store.denyRules.list() : undefined,
  }
}

/** What the nodes of agents serve. */
function createKnownEndpoints(rows: readonly EndpointsRow[]) {
  const all = new Map(rows.map(({ agentId, endpoints }) => [agentId, endpoints]))
  return {
    all,
    /** Gives the names of the services that it concerns. */
    take(id: string, after: EndpointsRow | undefined): ReadonlySet<string> {
      const [known] = [...all.keys()].filter((agentId) => agentId === id)
      const before = known === undefined ? [] : (all.get(known) ?? [])
      if (after !== undefined) all.set(after.agentId, after.endpoints)
      else if (known !== undefined) all.delete(known)
      return new Set([...before, ...(after?.endpoints ?? [])].map(({ service }) => service))
    },
  }
}

export async function openRegistry(store: Store, trustDomain: TrustDomain): Promise<Registry> {
  // first: what happens while the tables are read waits for them
  const loaded = Promise.withResolvers<void>()
  loaded.promise.catch(() => {})
  using failing = new DisposableStack()
  failing.defer(() => loaded.reject(new Error('the tables cannot be read')))
  const following = store.events.subscribe(async (events) => {
    await loaded.promise
    take(events, await freshFor(events, store))
  })
  const entries = createEntryIndex(trustDomain)
  for await (const entry of store.entries.all()) entries.put(entry)
  const agents = new Map((await store.agents.list()).map((agent) => [agent.id, agent]))
  const endpoints = createKnownEndpoints(await store.endpoints.list())
  const topic = createTopic<Change>()
  let policies = await store.policies.current()
  let denyRules: readonly DenyRuleRow[] = await store.denyRules.list()
  let denyList = createDenyList(denyRules)
  loaded.resolve()
  failing.move()

  function entryChange(id: string, after: EntryRow | undefined): Change {
    const before = entries.get(id)
    if (after === undefined) entries.remove(id)
    else entries.put(after)
    return { kind: 'entry', before, after }
  }

  function agentChange(id: string, after: AgentRow | undefined): Change {
    if (after !== undefined) agents.set(after.id, after)
    else for (const known of agents.keys()) if (known === id) agents.delete(known)
    return { kind: 'agent', id, after }
  }

  function changeOf({ kind, key }: Event, fresh: Fresh): Change | undefined {
    switch (kind) {
      case 'entry':
        return entryChange(key, fresh.entries.get(key))
      case 'agent':
        return agentChange(key, fresh.agents.get(key))
      case 'policies':
      case 'deny':
      case 'bundle':
        return { kind }
      case 'federation':
        return { kind, trustDomain: key }
      case 'endpoints':
        return { kind, services: endpoints.take(key, fresh.endpoints.get(key)) }
      case 'replica':
        return undefined
    }
  }

  function take(events: readonly Event[], fresh: Fresh): void {
    if (fresh.policies !== undefined) policies = fresh.policies
    if (fresh.denyRules !== undefined) {
      denyRules = fresh.denyRules
      denyList = createDenyList(denyRules)
    }
    for (const event of events) {
      const change = changeOf(event, fresh)
      if (change !== undefined) topic.publish(change)
    }
  }

  return {
    entries,
    agents,
    endpoints: endpoints.all,
    policies: () => policies,
    denyRules: () => denyRules,
    denyList: () => denyList,
    subscribe: (listener) => topic.subscribe(listener),
    [Symbol.dispose]: () => following[Symbol.dispose](),
  }
}

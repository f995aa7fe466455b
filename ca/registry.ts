// What the authority knows, in memory: entries, agents, policies, the deny-list. The store is the truth; this follows
// its events after each commit, so hot reads never touch the disk.
import { createTopic } from '../runtime/lifecycle.ts'
import { createDenyList, type DenyList } from '../spiffe/deny-list.ts'
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts'
import { createEntryIndex, type EntryIndex } from './entry-index.ts'
import type {
  AgentRow,
  DenyRuleRow,
  EntryRow,
  Event,
  Store,
  StoredPolicies,
} from './store/store.ts'

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

export interface Registry extends Disposable {
  readonly entries: EntryIndex
  readonly agents: Map<SpiffeId, AgentRow>
  readonly policies: () => StoredPolicies
  readonly denyRules: () => readonly DenyRuleRow[]
  /** the same, to ask */
  readonly denyList: () => DenyList
  /** Called after this registry has taken a change in. */
  subscribe(listener: (change: Change) => void): Disposable
}

export function openRegistry(store: Store, trustDomain: TrustDomain): Registry {
  const entries = createEntryIndex(trustDomain, store.entries.list())
  const agents = new Map(store.agents.list().map((agent) => [agent.id, agent]))
  const topic = createTopic<Change>()
  let policies = store.policies.current()
  let denyRules = store.denyRules.list()
  let denyList = createDenyList(denyRules)

  function changeOf({ kind, key }: Event): Change {
    switch (kind) {
      case 'entry': {
        const before = entries.get(key)
        const after = store.entries.get(key)
        if (after === undefined) entries.remove(key)
        else entries.put(after)
        return { kind, before, after }
      }
      case 'agent': {
        const after = store.agents.get(key)
        if (after !== undefined) agents.set(after.id, after)
        else for (const id of agents.keys()) if (id === key) agents.delete(id)
        return { kind, id: key, after }
      }
      case 'policies':
        policies = store.policies.current()
        return { kind }
      case 'deny':
        denyRules = store.denyRules.list()
        denyList = createDenyList(denyRules)
        return { kind }
      case 'bundle':
        return { kind }
      case 'federation':
        return { kind, trustDomain: key }
    }
  }

  const following = store.events.subscribe((events) => {
    for (const event of events) topic.publish(changeOf(event))
  })
  return {
    entries,
    agents,
    policies: () => policies,
    denyRules: () => denyRules,
    denyList: () => denyList,
    subscribe: (listener) => topic.subscribe(listener),
    [Symbol.dispose]: () => following[Symbol.dispose](),
  }
}

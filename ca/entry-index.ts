// Registration entries in memory: which identities an agent may hand out (SPIRE's parent rule).
import { type SpiffeId, spiffeIdOf, type TrustDomain } from '../spiffe/id.ts'
import type { EntryRow, SelectorRow } from './store/model.ts'

export interface EntryIndex {
  readonly size: number
  get(id: string): EntryRow | undefined
  all(): IterableIterator<EntryRow>
  put(entry: EntryRow): void
  remove(id: string): void
  /** Entries of that SPIFFE ID that have not expired. */
  bySpiffeId(id: SpiffeId, now: number): readonly EntryRow[]
  /**
   * All entries below an agent: its children, those of its aliases (entries whose parent is the server
   * and whose selectors the agent has), and theirs in turn. `now` in milliseconds; expired ones are out.
   */
  authorized(agent: AgentFacts, now: number): EntryRow[]
  /** Whether `agent` may have an SVID of this entry. */
  isAuthorized(agent: AgentFacts, entry: EntryRow, now: number): boolean
}

export interface AgentFacts {
  readonly id: SpiffeId
  readonly selectors: readonly SelectorRow[]
}

const selectorText = ({ type, value }: SelectorRow) => `${type}:${value}`

/** Rows by a key that most have alone: a set is made for the second one. */
interface Rows<K> {
  add(key: K, entry: EntryRow): void
  drop(key: K, entry: EntryRow): void
  of(key: K): Iterable<EntryRow>
}

function createRows<K>(): Rows<K> {
  const index = new Map<K, EntryRow | Set<EntryRow>>()
  return {
    add(key, entry) {
      const known = index.get(key)
      if (known === undefined) index.set(key, entry)
      else if (known instanceof Set) known.add(entry)
      else index.set(key, new Set([known, entry]))
    },
    drop(key, entry) {
      const known = index.get(key)
      if (known === entry) index.delete(key)
      if (known instanceof Set && known.delete(entry) && known.size === 0) index.delete(key)
    },
    of(key) {
      const known = index.get(key)
      if (known === undefined) return []
      return known instanceof Set ? known : [known]
    },
  }
}

export function createEntryIndex(
  trustDomain: TrustDomain,
  rows: Iterable<EntryRow> = [],
): EntryIndex {
  const byId = new Map<string, EntryRow>()
  const byParent = createRows<SpiffeId>()
  const byIdentity = createRows<SpiffeId>()
  const server = spiffeIdOf(trustDomain, '/spire/server')

  function remove(id: string): void {
    const old = byId.get(id)
    if (old === undefined) return
    byId.delete(id)
    byParent.drop(old.parentId, old)
    byIdentity.drop(old.spiffeId, old)
  }

  function put(entry: EntryRow): void {
    remove(entry.id)
    byId.set(entry.id, entry)
    byParent.add(entry.parentId, entry)
    byIdentity.add(entry.spiffeId, entry)
  }

  const isAlive = (entry: EntryRow, now: number) =>
    entry.expiresAt === 0 || entry.expiresAt * 1000 > now

  function aliasesOf({ selectors }: AgentFacts, now: number): EntryRow[] {
    const own = new Set(selectors.map(selectorText))
    return [...byParent.of(server)].filter(
      (alias) => isAlive(alias, now) && alias.selectors.every((it) => own.has(selectorText(it))),
    )
  }

  function authorized(agent: AgentFacts, now: number): EntryRow[] {
    const found = new Set<EntryRow>()
    const seen = new Set<SpiffeId>()
    const queue: SpiffeId[] = [agent.id, ...aliasesOf(agent, now).map((alias) => alias.spiffeId)]
    for (let parent = queue.pop(); parent !== undefined; parent = queue.pop()) {
      if (seen.has(parent)) continue
      seen.add(parent)
      for (const entry of byParent.of(parent)) {
        if (!isAlive(entry, now)) continue
        found.add(entry)
        queue.push(entry.spiffeId)
      }
    }
    return [...found]
  }

  /** Walks up instead of down: an entry has few ancestors, an agent may have many entries. */
  function isAuthorized(agent: AgentFacts, entry: EntryRow, now: number): boolean {
    const tops = new Set<SpiffeId>([
      agent.id,
      ...aliasesOf(agent, now).map((alias) => alias.spiffeId),
    ])
    const seen = new Set<EntryRow>()
    const queue = [entry]
    for (let it = queue.pop(); it !== undefined; it = queue.pop()) {
      if (seen.has(it) || !isAlive(it, now)) continue
      if (tops.has(it.parentId)) return true
      seen.add(it)
      queue.push(...byIdentity.of(it.parentId))
    }
    return false
  }

  for (const row of rows) put(row)
  return {
    get size() {
      return byId.size
    },
    get: (id) => byId.get(id),
    all: () => byId.values(),
    put,
    remove,
    bySpiffeId: (id, now) => [...byIdentity.of(id)].filter((it) => isAlive(it, now)),
    authorized,
    isAuthorized,
  }
}

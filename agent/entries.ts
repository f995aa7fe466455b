// Registration entries as an agent uses them: which apply to a process that has certain selectors.
import type { Labels } from '../policies/language/policy.ts'
import type { EntryLabels } from '../proto/gen/castellan/entry/v1/labels_pb.js'
import type { Entry } from '../proto/gen/spire/api/types/entry_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { isSpiffeId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/id.ts'

export interface AgentEntry {
  readonly id: string
  readonly revision: bigint
  readonly spiffeId: SpiffeId
  /** `type:value` */
  readonly selectors: readonly string[]
  readonly federatesWith: readonly TrustDomain[]
  readonly hint: string
  /** of administrators and downstream authorities: for nobody who asks on another's behalf */
  readonly isPrivileged: boolean
  /** its X.509-SVID is made once it is asked for */
  readonly isLazy: boolean
  /** each JWT-SVID is another one */
  readonly hasUniqueTokens: boolean
  /** seconds since the epoch */
  readonly createdAt: bigint
  /** what selectors of policies ask for */
  readonly labels: Labels
}

const noLabels: Labels = {}

export function entryOf(wire: Entry, labels: Labels = noLabels): AgentEntry | undefined {
  const uri = `spiffe://${wire.spiffeId?.trustDomain ?? ''}${wire.spiffeId?.path ?? ''}`
  if (!isSpiffeId(uri)) return undefined
  const { id, hint, createdAt, additionalAttributes: more } = wire
  return {
    ...{ id, hint, createdAt, labels },
    revision: wire.revisionNumber,
    spiffeId: uri,
    selectors: wire.selectors.map(({ type, value }) => `${type}:${value}`),
    federatesWith: wire.federatesWith.map(parseTrustDomain),
    isPrivileged: wire.admin || wire.downstream,
    isLazy: more?.disableX509SvidPrefetch === true,
    hasUniqueTokens: more?.jwtSvidIncludeJti === true,
  }
}

/** What may be given to those who ask for others: administrators and authorities act for themselves (R9). */
export function ordinary(entries: readonly AgentEntry[]): readonly AgentEntry[] {
  return entries.filter(({ isPrivileged }) => !isPrivileged)
}

export interface EntryMatcher {
  /** Those whose selectors are all in `selectors`, oldest first: the first is the default identity. */
  matching(selectors: ReadonlySet<string>): readonly AgentEntry[]
  /** changes when selectors of another kind are asked for: who was attested before may have some of them */
  readonly kinds: string
}

/** `matching` gives the same array again for the same selectors: callers compare and cache by it. */
const kindOf = (selector: string) => selector.split(':', 2).join(':')

export function createMatcher(entries: Iterable<AgentEntry>): EntryMatcher {
  const byFirst = new Map<string, AgentEntry[]>()
  const kinds = new Set<string>()
  for (const entry of entries) {
    for (const selector of entry.selectors) kinds.add(kindOf(selector))
    const [first = ''] = entry.selectors
    const group = byFirst.get(first)
    if (group === undefined) byFirst.set(first, [entry])
    else group.push(entry)
  }
  const known = new Map<string, readonly AgentEntry[]>()

  function find(selectors: ReadonlySet<string>): readonly AgentEntry[] {
    return [...selectors]
      .flatMap((selector) => byFirst.get(selector) ?? [])
      .filter((entry) => entry.selectors.every((selector) => selectors.has(selector)))
      .sort((a, b) => Number(a.createdAt - b.createdAt) || (a.id < b.id ? -1 : 1))
  }

  return {
    kinds: [...kinds].sort().join(),
    matching(selectors) {
      const key = [...selectors].sort().join('\n')
      const cached = known.get(key)
      if (cached !== undefined) return cached
      const found = find(selectors)
      if (known.size >= 4096) known.clear()
      known.set(key, found)
      return found
    },
  }
}

/** The entries that an agent was told of, as they came and as they are used. */
export interface KnownEntries {
  readonly all: ReadonlyMap<string, AgentEntry>
  take(change: EntryChange): void
  wire(): { readonly entries: Entry[]; readonly labels: EntryLabels[] }
  /** Entries of identities that `isUsable` lets pass; made anew after each change, and after a while. */
  matcher(): EntryMatcher
}

export interface EntryChange {
  readonly snapshot: boolean
  readonly entries: readonly Entry[]
  /** of those among `entries` that have some */
  readonly labels: readonly EntryLabels[]
  readonly deletedEntries: readonly string[]
}

/** milliseconds for which a matcher is used: a rule of the deny-list may have ended since */
const matcherLife = 5000

export function createKnownEntries(
  isUsable: (id: SpiffeId) => boolean,
  clock: Pick<Clock, 'monotonic'>,
): KnownEntries & { readonly changed: () => void } {
  const all = new Map<string, AgentEntry>()
  const wire = new Map<string, { readonly entry: Entry; readonly labels: readonly EntryLabels[] }>()
  let made: { readonly at: number; readonly matcher: EntryMatcher } | undefined

  function drop(id: string): void {
    all.delete(id)
    wire.delete(id)
  }

  return {
    all,
    take({ snapshot, entries, labels, deletedEntries }) {
      for (const id of snapshot ? [...all.keys()] : deletedEntries) drop(id)
      const labelsOf = new Map(labels.map((it) => [it.entryId, it]))
      for (const one of entries) {
        const its = labelsOf.get(one.id)
        const entry = entryOf(one, its?.labels)
        if (entry === undefined) continue
        all.set(entry.id, entry)
        wire.set(entry.id, { entry: one, labels: its === undefined ? [] : [its] })
      }
    },
    wire: () => ({
      entries: [...wire.values()].map(({ entry }) => entry),
      labels: [...wire.values()].flatMap(({ labels }) => labels),
    }),
    changed() {
      made = undefined
    },
    matcher() {
      const now = clock.monotonic()
      if (made === undefined || now - made.at > matcherLife) {
        const usable = [...all.values()].filter(({ spiffeId }) => isUsable(spiffeId))
        made = { at: now, matcher: createMatcher(usable) }
      }
      return made.matcher
    },
  }
}

// What one agent is told, and what of it is out of date on its side: messages of the Control stream.
import { createHash } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { AuthorityMessageSchema } from '../../proto/gen/castellan/control/v1/control_pb.js'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { Authority } from '../authority.ts'
import type { Change } from '../registry.ts'
import type { AgentRow, EntryRow } from '../store/model.ts'
import { bundleToWire, entryToWire, hasLabels, labelsToWire } from '../wire.ts'
import { denyListToWire } from './deny-rules.ts'
import type { Federated } from './federated.ts'
import { enforcedToWire } from './policies.ts'

type Message = MessageInitShape<typeof AuthorityMessageSchema>

/** What is out of date on the agent's side. */
export interface Dirty {
  entries: boolean
  bundle: boolean
  policies: boolean
  revocation: boolean
  federated: boolean
  endpoints: boolean
}

export const clean: Dirty = {
  ...{ entries: false, bundle: false, policies: false, revocation: false, federated: false },
  endpoints: false,
}
export const everything: Dirty = {
  ...{ entries: true, bundle: true, policies: true, revocation: true, federated: true },
  // it says first which ones
  endpoints: false,
}

/** What a change puts out of date, beside what is. */
export function mark(dirty: Dirty, kind: Change['kind']): Dirty {
  switch (kind) {
    case 'entry':
      return { ...dirty, entries: true }
    case 'bundle':
      // each authority has a CRL of its own
      return { ...dirty, bundle: true, revocation: true }
    case 'deny':
      return { ...dirty, revocation: true }
    case 'policies':
      return { ...dirty, policies: true }
    case 'federation':
      return { ...dirty, federated: true }
    case 'endpoints':
      return { ...dirty, endpoints: true }
    case 'agent':
      return dirty
  }
}

/** What cursors are of: this store, and who was told. Another agent, or one with other selectors, has other entries. */
export function epochOf({ store }: Authority, { id, selectors }: AgentRow): string {
  const who = [id, ...selectors.map(({ type, value }) => `${type}:${value}`).toSorted()]
  const digest = createHash('sha256').update(JSON.stringify(who)).digest('base64url')
  return `${store.epoch}.${digest.slice(0, 16)}`
}

function bundleOf({ trustDomain, authorities }: Authority) {
  const prepared = authorities.all().filter(({ state }) => state === 'prepared')
  const canaries = prepared.map(({ canary }) => canary)
  return { bundle: bundleToWire(trustDomain, authorities), canaries }
}

function tracedPolicies({ registry, policyTraces }: Authority) {
  const set = enforcedToWire(registry.policies())
  return { ...set, traceparent: policyTraces.of(Number(set.version)) }
}

async function revocationOf({ registry, revocation }: Authority) {
  const crls = await revocation.crls()
  return { denyList: denyListToWire(registry.denyRules()), crls: [...crls] }
}

/** Names of the services that an agent looks for. */
export type Wanted = ReadonlySet<string>

const endpointsOf = ({ endpoints }: Authority, wanted: Wanted) => ({
  endpoints: { endpoints: [...endpoints.of(wanted)] },
})

/** Composes messages for one agent and remembers what it was sent. */
export function createFeed(
  authority: Authority,
  agent: AgentRow,
  { federated, wanted }: { readonly federated: Federated; readonly wanted: () => Wanted },
) {
  const { registry, clock, store } = authority
  const epoch = epochOf(authority, agent)
  // rows, not revisions: an entry that was deleted and made again starts its revisions anew (R12)
  const sent = new Map<string, EntryRow>()
  const parents = new Set<SpiffeId>()
  const peers = new Set<string>()
  let isPeersNew = false

  /** Notes whom the entries federate with. */
  function federateWith(now: readonly EntryRow[]): void {
    const names = new Set(now.flatMap(({ federatesWith }) => federatesWith))
    isPeersNew ||= names.symmetricDifference(peers).size > 0
    peers.clear()
    for (const name of names) peers.add(name)
  }

  async function bundles(isDirty: boolean): Promise<Pick<Message & object, 'federated'>> {
    if (!isDirty && !isPeersNew) return {}
    isPeersNew = false
    return { federated: { bundles: await federated.of(peers) } }
  }

  function entries(): Pick<Message & object, 'entries' | 'deletedEntries' | 'labels'> {
    const now = registry.entries.authorized(agent, clock.now())
    parents.clear()
    parents.add(agent.id)
    for (const { spiffeId } of now) parents.add(spiffeId)
    federateWith(now)
    const changed = now.filter((entry) => sent.get(entry.id) !== entry)
    const present = new Set(now.map(({ id }) => id))
    const deletedEntries = [...sent.keys()].filter((id) => !present.has(id))
    sent.clear()
    for (const entry of now) sent.set(entry.id, entry)
    return {
      entries: changed.map((entry) => entryToWire(entry)),
      labels: changed.filter(hasLabels).map(labelsToWire),
      deletedEntries,
    }
  }

  return {
    async message(dirty: Dirty, snapshot: boolean): Promise<Message> {
      // taken first: what happens while the message is made will be told again, never lost
      const cursor = BigInt(store.events.last())
      return {
        cursor,
        epoch,
        snapshot,
        ...(dirty.entries ? entries() : {}),
        ...(dirty.bundle ? bundleOf(authority) : {}),
        ...(dirty.policies ? { policies: tracedPolicies(authority) } : {}),
        ...(dirty.endpoints ? endpointsOf(authority, wanted()) : {}),
        ...(dirty.revocation ? { revocation: await revocationOf(authority) } : {}),
        // after the entries, which say whose
        ...(await bundles(dirty.federated)),
      }
    },
    /** Without sending: the agent has these already. */
    assumeKnown() {
      entries()
      isPeersNew = false
    },
    federatesWith: (trustDomain: string) => peers.has(trustDomain),
    concerns(change: Extract<Change, { kind: 'entry' }>): boolean {
      const rows = [change.before, change.after].filter((row) => row !== undefined)
      return rows.some(
        ({ parentId }) => parents.has(parentId) || parentId.endsWith('/spire/server'),
      )
    },
  }
}

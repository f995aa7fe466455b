// castellan.control.v1.Control: pushes what concerns an agent, after a cursor, and hears what it has put
// to use. A live stream gets differences; an agent that was away gets what changed, whole.
import { createHash } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import {
  type AgentMessage,
  type AuthorityMessageSchema,
  Control,
  type Hello,
} from '../../proto/gen/castellan/control/v1/control_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { createLatest, every } from '../../runtime/lifecycle.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import type { Change } from '../registry.ts'
import type { AgentRow, EntryRow } from '../store/model.ts'
import { badRequest, bundleToWire, entryToWire, hasLabels, labelsToWire } from '../wire.ts'
import { denyListToWire } from './deny-rules.ts'
import { pointsOf } from './enforcement.ts'
import { type Federated, openFederated } from './federated.ts'
import { enforcedToWire } from './policies.ts'

type Message = MessageInitShape<typeof AuthorityMessageSchema>

/** What is out of date on the agent's side. */
interface Dirty {
  entries: boolean
  bundle: boolean
  policies: boolean
  revocation: boolean
  federated: boolean
}

const clean: Dirty = {
  ...{ entries: false, bundle: false, policies: false, revocation: false, federated: false },
}
const everything: Dirty = {
  ...{ entries: true, bundle: true, policies: true, revocation: true, federated: true },
}

/** Which events the agent missed; a cursor of another store, or one that is too old, is all of them. */
const mostMissed = 10_000

/** milliseconds between messages of an idle stream; agents give up after three without one */
const heartbeat = 20_000

async function helloOf(requests: AsyncIterator<AgentMessage>): Promise<Hello> {
  const { value, done } = await requests.next()
  if (done === true || value.message.case !== 'hello') {
    return badRequest([{ field: 'hello', problem: 'has to come first' }])
  }
  return value.message.value
}

/** What cursors are of: this store, and who was told. Another agent, or one with other selectors, has other entries. */
function epochOf({ store }: Authority, { id, selectors }: AgentRow): string {
  const who = [id, ...selectors.map(({ type, value }) => `${type}:${value}`).toSorted()]
  const digest = createHash('sha256').update(JSON.stringify(who)).digest('base64url')
  return `${store.epoch}.${digest.slice(0, 16)}`
}

async function missedSince(
  { cursor, epoch }: Hello,
  authority: Authority,
  agent: AgentRow,
): Promise<Dirty | 'everything'> {
  const { store } = authority
  const at = Number(cursor)
  if (at === 0 || epoch !== epochOf(authority, agent) || at > store.events.last())
    return 'everything'
  const events = await store.events.after(at, mostMissed)
  if (events.length === mostMissed) return 'everything'
  const kinds = new Set(events.map(({ kind }) => kind))
  // whether an entry that went away was this agent's cannot be told any more
  if (kinds.has('entry')) return 'everything'
  // CRLs end by themselves: whoever was away may have missed newer ones
  const revocation = true
  return {
    entries: false,
    bundle: kinds.has('bundle'),
    policies: kinds.has('policies'),
    revocation,
    federated: kinds.has('federation'),
  }
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

/** Composes messages for one agent and remembers what it was sent. */
function createFeed(authority: Authority, agent: AgentRow, federated: Federated) {
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

export function controlService(authority: Authority): Service<Peer> {
  const { registry, callers, clock, acknowledgements, enforcement, revocation } = authority
  // as long as the process, like the registry that it follows
  const federated = openFederated(authority)

  async function hear(requests: AsyncIterable<AgentMessage>, agent: SpiffeId): Promise<void> {
    for await (const { message } of requests) {
      switch (message.case) {
        case 'acknowledged': {
          // no further than there is anything to know
          const cursor = Math.min(Number(message.value.cursor), authority.store.events.last())
          acknowledgements.acknowledge(agent, cursor)
          break
        }
        case 'policies':
          enforcement.said(agent, pointsOf(message.value))
          break
        default:
          badRequest([{ field: 'message', problem: 'is nothing that comes after the first' }])
      }
    }
  }

  return service<typeof Control, Peer>(Control, {
    async *subscribe(requests, context) {
      const { row: agent } = callers.agent(context)
      const iterator = requests[Symbol.asyncIterator]()
      const hello = await helloOf(iterator)
      // heard, and waited for, before it has put anything to use
      acknowledgements.acknowledge(agent.id, 0)
      enforcement.opened(agent.id)
      const feed = createFeed(authority, agent, federated)
      using wake = createLatest<true>(context.signal)
      let dirty = clean
      let failure: { error: unknown } | undefined
      using _ = registry.subscribe((change) => {
        if (change.kind === 'agent' && change.id !== agent.id) return
        if (change.kind === 'federation' && !feed.federatesWith(change.trustDomain)) return
        if (change.kind === 'entry' && !feed.concerns(change)) return
        dirty = mark(dirty, change.kind)
        wake.push(true)
      })
      using __ = revocation.onChange(() => {
        dirty = mark(dirty, 'deny')
        wake.push(true)
      })
      hear({ [Symbol.asyncIterator]: () => iterator }, agent.id).catch((error: unknown) => {
        failure = { error }
        wake.push(true)
      })
      await using __beat = every(clock, heartbeat, () => wake.push(true))
      const missed = await missedSince(hello, authority, agent)
      if (missed !== 'everything') feed.assumeKnown()
      yield missed === 'everything'
        ? await feed.message(everything, true)
        : await feed.message(missed, false)
      for await (const __ of wake) {
        if (failure !== undefined) throw failure.error
        // banned, deleted or renewed meanwhile: the stream ends with the reason
        callers.agent(context)
        const now = dirty
        dirty = clean
        // with nothing out of date it is the heartbeat that both ends rely on
        yield await feed.message(now, false)
      }
    },
  })
}

function mark(dirty: Dirty, kind: Change['kind']): Dirty {
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
    case 'agent':
      return dirty
  }
}

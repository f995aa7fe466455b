// castellan.control.v1.Control: pushes what concerns an agent, after a cursor, and hears what it has put
// to use. A live stream gets differences; an agent that was away gets what changed, whole.
import {
  type AgentMessage,
  Control,
  type Hello,
  type Services,
} from '../../proto/gen/castellan/control/v1/control_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { createLatest, every } from '../../runtime/lifecycle.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import type { AgentRow } from '../store/model.ts'
import { badRequest } from '../wire.ts'
import { pointsOf } from './enforcement.ts'
import { openFederated } from './federated.ts'
import { clean, createFeed, type Dirty, epochOf, everything, mark, type Wanted } from './feed.ts'

/** Which events the agent missed; a cursor of another store, or one that is too old, is all of them. */
const mostMissed = 10_000

const mostWanted = 1000

/** Throws ERR_BAD_REQUEST for more than an agent of ours would say. */
function wantedOf({ wanted }: Services): Wanted {
  if (wanted.length <= mostWanted) return new Set(wanted)
  return badRequest([{ field: 'services.wanted', problem: `more than ${mostWanted} of them` }])
}

/** milliseconds between messages of an idle stream; agents give up after three without one */
const heartbeat = 20_000

async function helloOf(requests: AsyncIterator<AgentMessage>): Promise<Hello> {
  const { value, done } = await requests.next()
  if (done === true || value.message.case !== 'hello') {
    return badRequest([{ field: 'hello', problem: 'has to come first' }])
  }
  return value.message.value
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
    endpoints: false,
  }
}

/** Takes in what an agent says, until it says no more. */
async function hear(
  { acknowledgements, enforcement, endpoints, store }: Authority,
  requests: AsyncIterable<AgentMessage>,
  { row, want }: { readonly row: AgentRow; readonly want: (wanted: Wanted) => void },
): Promise<void> {
  const { id: agent } = row
  for await (const { message } of requests) {
    switch (message.case) {
      case 'acknowledged': {
        // no further than there is anything to know
        const cursor = Math.min(Number(message.value.cursor), store.events.last())
        acknowledgements.acknowledge(agent, cursor)
        break
      }
      case 'policies':
        enforcement.said(agent, pointsOf(message.value))
        break
      case 'services':
        want(wantedOf(message.value))
        await endpoints.said(row, message.value.served, message.value.whole)
        break
      default:
        badRequest([{ field: 'message', problem: 'is nothing that comes after the first' }])
    }
  }
}

export function controlService(authority: Authority): Service<Peer> {
  const { registry, callers, clock, acknowledgements, enforcement, endpoints, revocation } =
    authority
  // as long as the process, like the registry that it follows
  const federated = openFederated(authority)

  return service<typeof Control, Peer>(Control, {
    async *subscribe(requests, context) {
      const { row: agent } = callers.agent(context)
      const iterator = requests[Symbol.asyncIterator]()
      const hello = await helloOf(iterator)
      // heard, and waited for, before it has put anything to use
      acknowledgements.acknowledge(agent.id, 0)
      enforcement.opened(agent.id)
      endpoints.opened(agent.id)
      using leaving = new DisposableStack()
      leaving.defer(() => endpoints.closed(agent.id))
      let wanted: Wanted = new Set()
      const feed = createFeed(authority, agent, { federated, wanted: () => wanted })
      using wake = createLatest<true>(context.signal)
      let dirty = clean
      let failure: { error: unknown } | undefined
      using _ = registry.subscribe((change) => {
        if (change.kind === 'agent' && change.id !== agent.id) {
          // a banned one serves nothing any more
          if (!endpoints.isServedBy(change.id, wanted)) return
          dirty = mark(dirty, 'endpoints')
        }
        if (change.kind === 'federation' && !feed.federatesWith(change.trustDomain)) return
        if (change.kind === 'entry' && !feed.concerns(change)) return
        if (change.kind === 'endpoints' && wanted.isDisjointFrom(change.services)) return
        dirty = mark(dirty, change.kind)
        wake.push(true)
      })
      using __ = revocation.onChange(() => {
        dirty = mark(dirty, 'deny')
        wake.push(true)
      })
      const want = (now: Wanted) => {
        wanted = now
        dirty = mark(dirty, 'endpoints')
        wake.push(true)
      }
      const said = { [Symbol.asyncIterator]: () => iterator }
      hear(authority, said, { row: agent, want }).catch((error: unknown) => {
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

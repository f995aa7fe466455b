// The control stream of a castellan authority: what it pushes is taken in, put to use and acknowledged.
import type { MessageInitShape } from '@bufbuild/protobuf'
import { createClient } from '@connectrpc/connect'
import { type AgentMessageSchema, Control } from '../proto/gen/castellan/control/v1/control_pb.js'
import { createLatest, every } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { bundleSourceOf } from '../spiffe/bundle.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { Work } from './calls.ts'
import type { Knowledge } from './knowledge.ts'

type Outgoing = MessageInitShape<typeof AgentMessageSchema>

const longestSilence = 60_000

/** Follows an authority over one connection until it breaks. */
export type Follow = (work: Work, following: Following) => Promise<never>

export interface Following {
  /** a message was taken in */
  readonly connected: () => void
  /** Puts the bundle on disk. */
  readonly persist: () => void
  readonly log: Log
}

/** Why a leaf of an authority that is about to sign would not be believed; undefined when all would. */
function rehearse(canaries: readonly Uint8Array[], knowledge: Knowledge, now: number): unknown {
  try {
    const bundles = bundleSourceOf(knowledge.bundle())
    for (const canary of canaries) verifySvid([canary], bundles, { now })
    return undefined
  } catch (error) {
    return error
  }
}

/**
 * Follows the control stream: each message is taken in, a bundle is on disk before it is acknowledged.
 * Never returns; throws when the stream ends, or nothing was heard for three heartbeats.
 */
export const followControl: Follow = async (
  { transport, knowledge, clock, signal },
  { connected, persist, log },
) => {
  const silent = new AbortController()
  const either = AbortSignal.any([signal, silent.signal])
  using acknowledgements = createLatest<bigint>(either)
  const place = knowledge.place()
  async function* outgoing(): AsyncGenerator<Outgoing> {
    yield { message: { case: 'hello', value: { ...place, version: '0.1.0' } } }
    for await (const cursor of acknowledgements) {
      yield { message: { case: 'acknowledged', value: { cursor } } }
    }
  }
  let heard = clock.monotonic()
  let canaries: readonly Uint8Array[] = []
  await using _ = every(clock, 5000, () => {
    if (clock.monotonic() - heard > longestSilence)
      silent.abort(new Error('the authority is silent'))
  })
  const client = createClient(Control, transport)
  for await (const message of client.subscribe(outgoing(), { signal: either })) {
    heard = clock.monotonic()
    knowledge.apply(message)
    if (message.bundle !== undefined) {
      persist()
      canaries = message.canaries
    }
    // with each heartbeat too: a clock that was behind may be right by now
    const failure = rehearse(canaries, knowledge, clock.now())
    knowledge.rehearsed(failure === undefined)
    if (failure !== undefined) log.error({ err: failure }, 'a new authority cannot be believed')
    // one that does not pass the rehearsal stays where it was: it holds the rotation up, and the authority
    // shows it
    acknowledgements.push(knowledge.place().cursor)
    connected()
  }
  throw new IdentityError('ERR_UNAVAILABLE', 'the authority ended the stream')
}

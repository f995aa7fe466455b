// The control stream of a castellan authority: what it pushes is taken in, put to use and acknowledged.
import { createClient } from '@connectrpc/connect'
import { Control } from '../proto/gen/castellan/control/v1/control_pb.js'
import { createLatest, every } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { bundleSourceOf } from '../spiffe/bundle.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { Work } from './calls.ts'
import type { Knowledge } from './knowledge.ts'
import { saying } from './saying.ts'
import type { Services } from './services.ts'
import { type Points, policiesInUse } from './sidecar/in-use.ts'

const longestSilence = 60_000

/** Follows an authority over one connection until it breaks. */
export type Follow = (work: Work, following: Following) => Promise<never>

export interface Following {
  /** a message was taken in */
  readonly connected: () => void
  /** Puts the bundle on disk; false when the disk does not take it. */
  readonly persist: () => boolean
  /** Resolves once what was taken in is told to the workloads too. */
  readonly told: (signal: AbortSignal) => Promise<void>
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
 * Follows the control stream: each message is taken in, a bundle is on disk before it is acknowledged. A disk
 * that takes nothing is no reason to break off: it is tried again with each message.
 * Never returns; throws when the stream ends, or nothing was heard for three heartbeats.
 */
async function follow(
  { transport, knowledge, clock, signal }: Work,
  { connected, persist, told, log }: Following,
  sources: Sources,
): Promise<never> {
  const silent = new AbortController()
  const either = AbortSignal.any([signal, silent.signal])
  using acknowledgements = createLatest<bigint>(either)
  const hello = { ...knowledge.place(), version: '0.1.0' }
  const words = {
    hello,
    acknowledgements,
    told,
    services: sources.services,
    inUse: policiesInUse(knowledge, sources),
  }
  let heard = clock.monotonic()
  let canaries: readonly Uint8Array[] = []
  let isKept = true
  await using _ = every(clock, 5000, () => {
    if (clock.monotonic() - heard > longestSilence)
      silent.abort(new Error('the authority is silent'))
  })
  const client = createClient(Control, transport)
  for await (const message of client.subscribe(saying(words, either), { signal: either })) {
    heard = clock.monotonic()
    knowledge.apply(message)
    if (message.bundle !== undefined) {
      isKept = false
      canaries = message.canaries
    }
    isKept ||= persist()
    // with each heartbeat too: a clock that was behind may be right by now
    const failure = rehearse(canaries, knowledge, clock.now())
    knowledge.settled(failure === undefined && isKept)
    if (failure !== undefined) log.error({ err: failure }, 'a new authority cannot be believed')
    // one that does not pass the rehearsal, or cannot write, stays where it was: it holds the rotation up,
    // and the authority shows it
    acknowledgements.push(knowledge.place().cursor)
    connected()
  }
  throw new IdentityError('ERR_UNAVAILABLE', 'the authority ended the stream')
}

/** What the node's sidecars and proxies have put to use, serve and look for. */
export interface Sources extends Points {
  readonly services: Pick<Services, 'said' | 'onChange'>
}

export function followControl(sources: Sources): Follow {
  return (work, following) => follow(work, following, sources)
}

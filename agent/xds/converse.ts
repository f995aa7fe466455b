// One xDS stream: requests come in, entries and SVIDs change, and the client is told what is news to it.
import type { Status } from '../../proto/gen/google/rpc/status_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import type { Audience } from '../audience.ts'
import type { AgentEntry } from '../entries.ts'
import type { Call, Entitled } from '../workload-api/entitled.ts'
import type { Pushes } from './pushes.ts'
import type { Offer, Wanted } from './resource.ts'

/** What one variant of xDS remembers of a stream. */
export interface Protocol<Request, Response> {
  /** Takes a request in; gives why the last response was refused, if it was. */
  hear(request: Request): Status | undefined
  /** undefined before the first request */
  wanted(): Wanted | undefined
  /** What is news to the client, if anything; it counts as told. */
  tell(offer: Offer): Response | undefined
  /** That resource is told again, though it is what it was. */
  forget(name: string): void
  /** Whether what was told last was answered, one way or the other. */
  isSettled(): boolean
}

/** What is news to a client, in order, and when to look again without a change. */
export interface Answers<Response> {
  readonly responses: readonly Response[]
  /** milliseconds since the epoch */
  readonly until?: number | undefined
}

export interface Conversation<Request, Response> {
  /** Takes a request in. Throws what is wrong with it. */
  readonly hear: (request: Request) => void
  /** What it says counts as told. */
  readonly answer: (entries: readonly AgentEntry[]) => Answers<Response>
  readonly follow: Entitled['follow']
  readonly audience: Pick<Audience, 'follow'>
  readonly clock: Clock
  /** What else changes the answers. */
  readonly onChange?: (listener: () => void) => Disposable
  /** disposed at its end */
  readonly pushes: Pushes
}

export interface OneType<Request, Response> {
  readonly protocol: Protocol<Request, Response>
  readonly offer: (wanted: Wanted, entries: readonly AgentEntry[]) => Offer
  /** looks at a request before it counts */
  readonly inspect: (request: Request) => void
  readonly refused: (reason: Status) => void
  readonly pushes: Pushes
}

/** A conversation about resources of one type. */
export function ofOneType<Request, Response>({
  protocol,
  offer,
  inspect,
  refused,
  pushes,
}: OneType<Request, Response>): Pick<
  Conversation<Request, Response>,
  'hear' | 'answer' | 'pushes'
> {
  return {
    pushes,
    hear(request) {
      inspect(request)
      const wasSettled = protocol.isSettled()
      const reason = protocol.hear(request)
      if (reason !== undefined) {
        refused(reason)
        pushes.refused('secrets')
      } else if (!wasSettled && protocol.isSettled()) pushes.taken('secrets')
    },
    answer(entries) {
      const wanted = protocol.wanted()
      if (wanted === undefined) return { responses: [] }
      const now = offer(wanted, entries)
      const response = protocol.tell(now)
      if (response !== undefined) pushes.sent('secrets')
      return { responses: response === undefined ? [] : [response], until: now.until }
    },
  }
}

/**
 * Calls `heard` with the caller's entries, at once and after each change; rejects when it has none any
 * more. Any change of an SVID counts.
 */
export async function watchEntries(
  follow: Entitled['follow'],
  call: Call,
  heard: (entries: readonly AgentEntry[]) => void,
): Promise<void> {
  const answers = follow(call, 'identified', (entries) => {
    heard(entries)
    return undefined
  })
  await answers.next()
}

/** Follows the caller until the call is over; rejects with the reason when its identity is gone. */
export async function* converse<Request, Response>(
  requests: AsyncIterable<Request>,
  call: Call,
  { hear, answer, follow, audience, clock, pushes, onChange }: Conversation<Request, Response>,
): AsyncGenerator<Response> {
  const stop = new AbortController()
  const signal = AbortSignal.any([call.signal, stop.signal])
  using wake = createLatest<true>(signal)
  using _told = audience.follow(wake)
  const ring = () => wake.push(true)
  let entries: readonly AgentEntry[] | undefined
  let failure: { readonly error: unknown } | undefined
  const fail = (error: unknown) => {
    failure ??= { error }
    ring()
  }
  const listen = async () => {
    for await (const request of requests) {
      hear(request)
      ring()
    }
  }
  // neither is waited for: a client may keep its side open for as long as it likes
  listen().catch(fail)
  watchEntries(follow, { ...call, signal }, (mine) => {
    entries = mine
    ring()
  }).catch(fail)
  using _more = onChange?.(ring)
  let alarm: Disposable | undefined
  try {
    for await (const _ of wake) {
      if (failure !== undefined) throw failure.error
      if (entries === undefined) continue
      alarm?.[Symbol.dispose]()
      const { responses, until } = answer(entries)
      alarm = until === undefined ? undefined : ringAt(clock, until, ring)
      yield* responses
    }
    call.signal.throwIfAborted()
  } finally {
    alarm?.[Symbol.dispose]()
    pushes[Symbol.dispose]()
    stop.abort()
  }
}

function ringAt(clock: Clock, at: number, ring: () => void): Disposable {
  const over = new AbortController()
  clock.sleep(Math.max(at - clock.now(), 10), { signal: over.signal }).then(ring, () => {})
  return { [Symbol.dispose]: () => over.abort() }
}

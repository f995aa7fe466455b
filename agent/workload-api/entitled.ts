// What a caller may have, and how a stream follows it: at once, after each change, until it may have nothing.

import type { Clock } from '../../runtime/clock.ts'
import type { CallContext } from '../../runtime/grpc/service.ts'
import { type Prepared, prepared } from '../../runtime/grpc/service.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { hasCode, IdentityError } from '../../spiffe/errors.ts'
import type { TrustDomain } from '../../spiffe/id.ts'
import type { Caller } from '../attest/caller.ts'
import type { Audience } from '../audience.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Trust } from '../trust.ts'

/** What a stream is told: unchanged state is recognised by its version and not sent again. */
export interface Answer {
  readonly version: string
  readonly encode: () => Uint8Array
  /** milliseconds since the epoch at which to look again without a change */
  readonly until?: number
}

export interface EntitledOptions {
  readonly knowledge: Knowledge
  readonly clock: Clock
  /** a listener for what else changes answers: SVIDs, by the entries that they are of */
  readonly onChange: (listener: (entryIds: ReadonlySet<string>) => void) => Disposable
  readonly audience: Pick<Audience, 'follow'>
}

export type Call = CallContext<Caller>

/** Who an answer is for. */
export interface Subject {
  /** What it is now, and which attestors could not tell. Throws when it has ended. */
  attest(): Promise<Attested>
  isAlive(): boolean
  /** Called when it has ended, or is not what it was when it was attested. */
  onChange(listener: () => void): Disposable
}

export interface Attested {
  readonly selectors: ReadonlySet<string>
  readonly failed: ReadonlySet<string>
}

const subjectOf = ({ peer }: Call): Subject => ({
  attest: () => peer.attest(),
  isAlive: () => peer.process.isAlive(),
  onChange: (listener) => peer.onChange(listener),
})

export interface Entitled {
  /**
   * The caller's entries, the default identity first; never none. Throws ERR_UNAVAILABLE while nothing is
   * known, ERR_NO_IDENTITY, ERR_DENIED when its process has ended.
   */
  entries(call: Call): Promise<readonly AgentEntry[]>
  /** The same, or none where others would be refused: for what needs no identity. */
  entriesOrNone(call: Call): Promise<readonly AgentEntry[]>
  /**
   * Complete state at once and after each change, never the same twice in a row. Ends with the reason when
   * the identity is gone.
   */
  follow(call: Call, which: Which, answer: Answering): AsyncGenerator<Prepared>
  /** The same for another one than who asks. */
  followSubject(
    subject: Subject,
    options: { readonly which: Which; readonly signal: AbortSignal },
    answer: Answering,
  ): AsyncGenerator<Prepared>
  entriesOf(subject: Subject): Promise<readonly AgentEntry[]>
}

export type Which = 'identified' | 'anyone'
type Answering = (
  entries: readonly AgentEntry[],
) => Answer | undefined | Promise<Answer | undefined>

function notYet(): never {
  throw new IdentityError('ERR_UNAVAILABLE', 'the agent has not heard from its authority yet', {
    retryAfter: 1000,
  })
}

/** Answers that were encoded, shared by all streams that are told the same. */
function createEncoded(): (answer: Answer) => Prepared {
  const known = new Map<string, Prepared>()
  return ({ version, encode }) => {
    const cached = known.get(version)
    if (cached !== undefined) return cached
    const made = prepared(encode())
    if (known.size >= 1024) known.clear()
    known.set(version, made)
    return made
  }
}

/** Attests a caller when it has to: at first, when its process changed, when entries ask for more of it. */
function createLook(subject: Subject, knowledge: Knowledge) {
  let known: { readonly kinds: string; readonly attested: Attested } | undefined
  return {
    forget: () => {
      known = undefined
    },
    async now(): Promise<Attested> {
      const kinds = knowledge.selectorKinds()
      if (known?.kinds === kinds && subject.isAlive()) return known.attested
      const attested = await subject.attest()
      // what could not be told now may be told next time
      known = attested.failed.size === 0 ? { kinds, attested } : undefined
      return attested
    },
  }
}

/** Rings at `until` as well. */
function createAlarm(clock: Clock, signal: AbortSignal, ring: () => void) {
  return (until: number): Disposable => {
    const over = new AbortController()
    const either = AbortSignal.any([signal, over.signal])
    clock.sleep(Math.max(until - clock.now(), 10), { signal: either }).then(ring, () => {})
    return { [Symbol.dispose]: () => over.abort() }
  }
}

export function createEntitled(options: EntitledOptions): Entitled {
  const { knowledge, clock, onChange, audience } = options
  const encodedOnce = createEncoded()

  function applying({ selectors }: Attested): readonly AgentEntry[] {
    if (!knowledge.isComplete()) notYet()
    return knowledge.entriesFor(selectors)
  }

  function entitled(attested: Attested): readonly AgentEntry[] {
    const entries = applying(attested)
    if (entries.length > 0) return entries
    // nobody is told that it has no identity by an agent that could not look (R17)
    if (attested.failed.size > 0) cannotTell(attested.failed)
    throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
  }

  async function entriesOf(subject: Subject): Promise<readonly AgentEntry[]> {
    if (!knowledge.isComplete()) notYet()
    return entitled(await subject.attest())
  }

  async function* followSubject(
    subject: Subject,
    { which, signal }: { readonly which: Which; readonly signal: AbortSignal },
    answer: Answering,
  ): AsyncGenerator<Prepared> {
    using wake = createLatest<true>(signal)
    using _told = audience.follow(wake)
    const ring = () => wake.push(true)
    const alarm = createAlarm(clock, signal, ring)
    const look = createLook(subject, knowledge)
    using _knowledge = knowledge.onChange(ring)
    using _more = onChange((changed) => {
      if (mine === undefined || mine.some(({ id }) => changed.has(id))) ring()
    })
    using _process = subject.onChange(() => {
      look.forget()
      ring()
    })
    let told = ''
    /** what was answered with; undefined while that is found out */
    let mine: readonly AgentEntry[] | undefined
    let next: Answer | undefined
    let alarmed: Disposable | undefined
    ring()
    try {
      for await (const __ of wake) {
        alarmed?.[Symbol.dispose]()
        if (!knowledge.isComplete()) notYet()
        mine = undefined
        const attested = await look.now()
        mine = which === 'identified' ? entitled(attested) : applying(attested)
        next = await answer(mine)
        // undefined while an SVID of a new entry is still being made: its arrival wakes us again
        if (next === undefined && told !== '') expired()
        if (next?.until !== undefined) alarmed = alarm(next.until)
        if (next === undefined || next.version === told) continue
        told = next.version
        yield encodedOnce(next)
      }
    } finally {
      alarmed?.[Symbol.dispose]()
    }
    signal.throwIfAborted()
  }

  const entries = (call: Call) => entriesOf(subjectOf(call))
  return {
    entries,
    entriesOf,
    followSubject,
    follow: (call, which, answer) =>
      followSubject(subjectOf(call), { which, signal: call.signal }, answer),
    async entriesOrNone(call) {
      try {
        return await entries(call)
      } catch (error) {
        if (hasCode(error, 'ERR_NO_IDENTITY')) return []
        throw error
      }
    },
  }
}

function cannotTell(failed: ReadonlySet<string>): never {
  const message = `what the caller is cannot be told now (${[...failed].join(', ')})`
  throw new IdentityError('ERR_UNAVAILABLE', message, { retryAfter: 1000 })
}

function expired(): never {
  throw new IdentityError('ERR_UNAVAILABLE', 'the SVID expired while the authority was away', {
    retryAfter: 1000,
  })
}

/** The trust domains that these entries see beside their own, as far as they are known, in one order. */
export function federatedWith(
  entries: readonly AgentEntry[],
  knowledge: Knowledge,
): readonly (readonly [TrustDomain, Trust])[] {
  const known = knowledge.federated()
  const names = new Set(entries.flatMap(({ federatesWith }) => federatesWith))
  return [...names].sort().flatMap((name) => {
    const trust = known.get(name)
    return trust === undefined ? [] : [[name, trust] as const]
  })
}

/**
 * The hint of each entry in one response: no two are the same (Workload API §5.2.1). Of two entries with one
 * hint the older keeps it; the other keeps its identity.
 */
export function hintsOf(entries: readonly AgentEntry[]): ReadonlyMap<string, string> {
  const used = new Set<string>()
  const hints = entries.map(({ id, hint }) => {
    const isFree = !used.has(hint)
    used.add(hint)
    return [id, isFree ? hint : ''] as const
  })
  return new Map(hints)
}

// One attempt at one endpoint, and what its failures mean.
import type { Retries, RetryCondition } from '../proxy-spec/outbound.ts'
import type { Clock } from '../runtime/clock.ts'
import { hasCode } from '../spiffe/errors.ts'
import { type Refusal, unreachable } from './door.ts'
import type { Attempt } from './onward.ts'
import { type Head, isWell } from './retry.ts'
import { after } from './timer.ts'

/** An attempt that came to nothing before an answer. */
export interface Failure {
  /** none when it is no fault of the endpoint: then nobody is asked again either */
  readonly conditions: readonly RetryCondition[]
  readonly error: unknown
  /** whether the same endpoint would do it again */
  readonly isLasting?: boolean
  /** what the caller is told when nobody is asked again */
  readonly refusal: Refusal
}

export interface Told<A> {
  answered(head: Head, answer: A): void
  failed(failure: Failure): void
}

/** Sends a request, never telling anything before it has returned. Throws for what cannot be written as one. */
export type Send<R, A> = (route: R, told: Told<A>) => Sent

export interface Sent {
  /** Ends it, whatever is under way. */
  abort(): void
  /** The same where the answer, if there is one, was not passed on: its connection may be kept. */
  discard(): void
}

export const late: Refusal = { status: 504, text: 'no answer in time' }
const tooMany: Refusal = { status: 503, text: 'too many connections' }

/** Of an error before an answer. */
export function failureOf(error: unknown, isConnected: boolean): Failure {
  if (hasCode(error, 'ERR_EXHAUSTED')) return { conditions: [], error, refusal: tooMany }
  const condition = isConnected ? 'reset' : 'connect-failure'
  const isLasting = hasCode(error, 'ERR_UNTRUSTED')
  return { conditions: [condition], error, isLasting, refusal: unreachable }
}

// an attempt that was given up is a connection that ended, and what a gateway would say of it
const slow = (): Failure => ({
  conditions: ['reset', 'gateway-error'],
  error: new Error('an endpoint gave no answer in time'),
  refusal: late,
})

// a peer that goes away in good order, and what is over here, say nothing against an endpoint
const isFault = ({ conditions }: Failure) => conditions.some((it) => it !== 'refused-stream')

export interface Open {
  /** Nothing is told any more; what is not done is ended. */
  end(isDone: boolean): void
  /** Another attempt takes its place. */
  discard(): void
  /** No time is left for it: that speaks against an endpoint that has not answered. */
  expire(): void
}

/** Tells one thing, once. */
export function startAttempt<R, A>(
  attempt: Attempt<R>,
  { send, told }: { readonly send: Send<R, A>; readonly told: Told<A> },
  { clock, perTry }: { readonly clock: Clock; readonly perTry: Retries['perTry'] },
): Open {
  let isTold = false
  let stopTimer = () => {}
  const tell = (isFine: boolean | undefined, then: () => void) => {
    if (isTold) return
    isTold = true
    stopTimer()
    if (isFine !== undefined) attempt.judge(isFine)
    then()
  }
  let sent: Sent
  try {
    sent = send(attempt.route, {
      answered: (head, answer) => tell(isWell(head), () => told.answered(head, answer)),
      failed: (failure) => tell(isFault(failure) ? false : undefined, () => told.failed(failure)),
    })
  } catch (error) {
    attempt[Symbol.dispose]()
    throw error
  }
  if (perTry !== undefined)
    stopTimer = after(clock, perTry, () => tell(false, () => told.failed(slow())))
  const close = () => {
    isTold = true
    stopTimer()
    attempt[Symbol.dispose]()
  }
  return {
    end(isDone) {
      close()
      if (!isDone) sent.abort()
    },
    discard() {
      close()
      sent.discard()
    },
    expire() {
      if (!isTold) attempt.judge(false)
    },
  }
}

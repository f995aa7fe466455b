// One request and its answer, whatever they are carried by: attempts one after the other, each with its endpoint, until
// an answer is passed on, time is over or the caller has left. What was passed on in part is never asked again.
import { type Failure, late, type Open, type Send, startAttempt } from './attempt.ts'
import type { Body } from './body.ts'
import type { Core } from './core.ts'
import { isRefusal, type Refusal, unreachable } from './door.ts'
import type { Onward } from './onward.ts'
import { createRepeats } from './repeats.ts'
import { type Asking, conditionsOf, type Head } from './retry.ts'
import { after } from './timer.ts'

export interface Exchange<R, A> {
  readonly core: Pick<Core, 'clock' | 'log' | 'tally'>
  readonly asking: Asking
  readonly onward: Onward<R>
  readonly body: Body
  readonly send: Send<R, A>
  /** Passes an answer on. */
  deliver(answer: A, route: R): void
  refuse(refusal: Refusal): void
  /** Ends what was passed on in part. */
  cut(): void
}

export interface Running {
  /** The caller has all of it, or has left. */
  end(isDone: boolean): void
}

/** What has to be called once a request is over, whichever way. */
interface Ends {
  timeout: () => void
  waiting: () => void
  entered: () => void
  open: Open | undefined
}

const switching = 101

/** Throws for what cannot be written as a request. */
export function startExchange<R, A>(exchange: Exchange<R, A>): Running {
  const { core, onward, body } = exchange
  const repeats = createRepeats(onward.again, exchange)
  const ends: Ends = { timeout() {}, waiting() {}, entered() {}, open: undefined }
  let state: 'asking' | 'answered' | 'over' = 'asking'

  function end(isDone: boolean): void {
    state = 'over'
    ends.open?.end(isDone)
    ends.open = undefined
    for (const it of [ends.timeout, ends.waiting, repeats.end, ends.entered]) it()
  }

  function give(refusal: Refusal, error?: unknown): void {
    end(false)
    core.tally.failed()
    core.log.warn({ err: error, reason: refusal.text }, 'request failed')
    exchange.refuse(refusal)
  }

  /** Whether there will be another attempt. */
  function asksAgain(failure: Pick<Failure, 'conditions' | 'isLasting'>): boolean {
    const wait = repeats.next(failure)
    if (wait === undefined) return false
    body.hold()
    ends.open?.discard()
    ends.open = undefined
    ends.waiting = after(core.clock, wait, attemptLater)
    return true
  }

  function attemptLater(): void {
    try {
      attempt()
    } catch (error) {
      give(unreachable, error)
    }
  }

  function answered(head: Head, answer: A, route: R): void {
    if (asksAgain({ conditions: conditionsOf(head) })) return
    state = 'answered'
    body.forget()
    // what is a tunnel from now on has no end to wait for
    if (head.status === switching) ends.timeout()
    exchange.deliver(answer, route)
  }

  function attempt(): void {
    const its = onward.attempt(repeats.tried)
    if (isRefusal(its)) {
      give(its)
      return
    }
    repeats.begin(its.key)
    const told = {
      answered: (head: Head, answer: A) => answered(head, answer, its.route),
      failed(failure: Failure) {
        if (!asksAgain(failure)) give(failure.refusal, failure.error)
      },
    }
    const perTry = onward.again?.retries.perTry
    ends.open = startAttempt(its, { send: exchange.send, told }, { clock: core.clock, perTry })
  }

  function expire(): void {
    ends.open?.expire()
    if (state === 'asking') give(late)
    else {
      end(false)
      exchange.cut()
    }
  }

  begin(exchange, { attempt, give, expire, ends, isOver: () => state === 'over' })
  return { end: (isDone) => (state === 'over' ? undefined : end(isDone)) }
}

interface Steps {
  attempt(): void
  give(refusal: Refusal): void
  expire(): void
  isOver(): boolean
  readonly ends: Ends
}

function begin<R, A>({ core, onward, body }: Exchange<R, A>, steps: Steps): void {
  const { attempt, give, expire, isOver, ends } = steps
  const entered = onward.enter()
  if (typeof entered !== 'function') {
    give(entered)
    return
  }
  ends.entered = entered
  try {
    attempt()
  } catch (error) {
    entered()
    throw error
  }
  const { timeout } = onward
  if (timeout === undefined) return
  body.onEnd(() => {
    if (!isOver()) ends.timeout = after(core.clock, timeout, expire)
  })
}

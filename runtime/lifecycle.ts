// Starting and stopping: background loops that are awaited, and subscriptions that are disposed.
import type { Clock } from './clock.ts'

/** A loop that was started. Disposing it aborts its signal and waits until it has returned. */
export interface Running extends AsyncDisposable {
  /** rejects when the loop failed for another reason than being stopped */
  readonly done: Promise<void>
}

/** Runs `body` in the background; it has to return or throw once its signal is aborted. */
export function run(body: (signal: AbortSignal) => Promise<void>): Running {
  const stop = new AbortController()
  const done = body(stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) throw error
  })
  done.catch(() => {})
  return {
    done,
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('stopped'))
      await done.catch(() => {})
    },
  }
}

/** Calls `step` every `ms` (one after the other, never overlapping) until stopped. */
export function every(
  clock: Clock,
  ms: number,
  step: (signal: AbortSignal) => Promise<void> | void,
): Running {
  return run(async (signal) => {
    while (!signal.aborted) {
      await clock.sleep(ms, { signal })
      await step(signal)
    }
  })
}

/** Rejects once `signal` is aborted. */
export function aborted(signal: AbortSignal): { readonly promise: Promise<never> } & Disposable {
  const { promise, reject } = Promise.withResolvers<never>()
  promise.catch(() => {})
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  return { promise, [Symbol.dispose]: () => signal.removeEventListener('abort', abort) }
}

/** Runs one piece of work after the other: each starts from what the one before it has left. */
export function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const turn = last.then(work, work)
    last = turn.catch(() => {})
    return turn
  }
}

export interface Topic<T> {
  publish(value: T): void
  subscribe(listener: (value: T) => void): Disposable
  /** how many listen now */
  readonly size: number
}

/** Ten lines instead of an event bus: listeners are called in order, synchronously. */
export function createTopic<T>(): Topic<T> {
  const listeners = new Set<(value: T) => void>()
  return {
    publish(value) {
      for (const listener of [...listeners]) listener(value)
    },
    subscribe(listener) {
      listeners.add(listener)
      return { [Symbol.dispose]: () => void listeners.delete(listener) }
    },
    get size() {
      return listeners.size
    },
  }
}

export interface Latest<T> extends Disposable {
  /** Replaces what has not been read yet: a slow reader sees the newest, never a backlog. */
  push(value: T): void
  /** Resolves once the reader waits for more, or has ended; undefined when that is so already. */
  caughtUp(): Promise<void> | undefined
  [Symbol.asyncIterator](): AsyncGenerator<T, void, void>
}

/** A one-place mailbox between a publisher and a stream; ends when `signal` is aborted. */
export function createLatest<T>(signal: AbortSignal): Latest<T> {
  let waiting = Promise.withResolvers<void>()
  let box: { value: T } | undefined
  let busy: PromiseWithResolvers<void> | undefined
  const wake = () => waiting.resolve()
  const rest = () => {
    busy?.resolve()
    busy = undefined
  }
  signal.addEventListener('abort', wake, { once: true })
  return {
    push(value) {
      // who was woken for the one before finds this one
      const isAwake = box !== undefined
      box = { value }
      if (isAwake) return
      busy ??= Promise.withResolvers()
      wake()
    },
    caughtUp: () => busy?.promise,
    async *[Symbol.asyncIterator]() {
      while (!signal.aborted) {
        if (box === undefined) {
          rest()
          await waiting.promise
        }
        waiting = Promise.withResolvers<void>()
        if (signal.aborted) return
        const full = box
        box = undefined
        if (full !== undefined) yield full.value
      }
    },
    [Symbol.dispose]() {
      signal.removeEventListener('abort', wake)
      rest()
    },
  }
}

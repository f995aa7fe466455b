// Time that only the test moves.
import type { Clock } from '../../runtime/clock.ts'

interface Sleeper {
  readonly due: number
  readonly wake: () => void
}

export interface FakeClock extends Clock {
  /** Moves time on; wakes who is due, in order, and lets each run before the next one. */
  advance(ms: number): Promise<void>
  /** Resolves once somebody sleeps. */
  asleep(): Promise<void>
  /** how many wait now */
  readonly sleepers: number
}

/** `now` in milliseconds since the epoch. */
export function createFakeClock(now = 1_800_000_000_000): FakeClock {
  const start = now
  const sleepers = new Set<Sleeper>()
  let waiting = Promise.withResolvers<void>()
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

  function nextUntil(end: number): Sleeper | undefined {
    const due = [...sleepers].filter((it) => it.due <= end)
    return due.sort((a, b) => a.due - b.due)[0]
  }

  return {
    now: () => now,
    monotonic: () => now - start,
    sleep(ms, { signal }) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      if (signal.aborted) return Promise.reject(signal.reason)
      const abort = () => {
        sleepers.delete(sleeper)
        reject(signal.reason)
      }
      const sleeper: Sleeper = {
        due: now + Math.max(ms, 0),
        wake() {
          signal.removeEventListener('abort', abort)
          resolve()
        },
      }
      signal.addEventListener('abort', abort, { once: true })
      sleepers.add(sleeper)
      waiting.resolve()
      return promise
    },
    async advance(ms) {
      const end = now + ms
      for (let next = nextUntil(end); next !== undefined; next = nextUntil(end)) {
        now = Math.max(now, next.due)
        sleepers.delete(next)
        next.wake()
        await turn()
      }
      now = end
      await turn()
    },
    asleep() {
      if (sleepers.size === 0) waiting = Promise.withResolvers()
      return sleepers.size > 0 ? Promise.resolve() : waiting.promise
    },
    get sleepers() {
      return sleepers.size
    },
  }
}

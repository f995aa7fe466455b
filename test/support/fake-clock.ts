// A clock that moves when the test says so.
import type { Clock } from '../../runtime/clock.ts'

export interface FakeClock extends Clock {
  /** Moves time; whoever's sleep is over wakes up. */
  advance(ms: number): void
  /** Resolves once somebody sleeps. */
  asleep(): Promise<void>
}

export function createFakeClock(start = 1_800_000_000_000): FakeClock {
  const sleepers = new Set<{ until: number; wake: () => void }>()
  let waiting = Promise.withResolvers<void>()
  let now = start
  return {
    now: () => now,
    monotonic: () => now,
    sleep(ms, { signal }) {
      return new Promise((resolve, reject) => {
        const sleeper = { until: now + ms, wake: resolve }
        const stop = () => {
          sleepers.delete(sleeper)
          reject(signal.reason)
        }
        if (signal.aborted) return stop()
        sleepers.add(sleeper)
        waiting.resolve()
        signal.addEventListener('abort', stop, { once: true })
      })
    },
    advance(ms) {
      now += ms
      for (const sleeper of sleepers) {
        if (sleeper.until > now) continue
        sleepers.delete(sleeper)
        sleeper.wake()
      }
    },
    async asleep() {
      if (sleepers.size > 0) return
      waiting = Promise.withResolvers<void>()
      await waiting.promise
    },
  }
}

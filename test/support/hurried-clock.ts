// The system's time, of which a test may skip some.
import { setTimeout as delay } from 'node:timers/promises'
import { type Clock, systemClock } from '../../runtime/clock.ts'

export interface HurriedClock extends Clock {
  /** From now on it is `ms` later; whoever is due by then is woken. */
  skip(ms: number): void
}

export function createHurriedClock(): HurriedClock {
  let skipped = 0
  const sleepers = new Set<AbortController>()
  const monotonic = () => systemClock.monotonic() + skipped

  async function doze(ms: number, signal: AbortSignal): Promise<void> {
    const woken = new AbortController()
    sleepers.add(woken)
    try {
      await delay(ms, undefined, { signal: AbortSignal.any([signal, woken.signal]) })
    } catch (error) {
      if (!woken.signal.aborted) throw error
    } finally {
      sleepers.delete(woken)
    }
  }

  return {
    now: () => systemClock.now() + skipped,
    monotonic,
    async sleep(ms, { signal }) {
      const due = monotonic() + ms
      for (let left = ms; left > 0; left = due - monotonic()) {
        signal.throwIfAborted()
        await doze(left, signal)
      }
      signal.throwIfAborted()
    },
    skip(ms) {
      skipped += ms
      for (const sleeper of sleepers) sleeper.abort()
    },
  }
}

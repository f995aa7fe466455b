// Time as an argument: everything that waits or compares instants takes a Clock, so that tests move it.
import { setTimeout as delay } from 'node:timers/promises'

export interface Clock {
  /** milliseconds since the epoch; may step when an operator sets the clock */
  now(): number
  /** milliseconds from an arbitrary start; never steps, for durations and backoff */
  monotonic(): number
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted first. */
  sleep(ms: number, options: { signal: AbortSignal }): Promise<void>
}

// setTimeout fires at once above 2^31-1 ms (24.8 days), so a long wait is made of ticks.
const longestTick = 2 ** 31 - 1

async function sleep(ms: number, { signal }: { signal: AbortSignal }): Promise<void> {
  for (let left = ms; left > 0; left -= longestTick) {
    await delay(Math.min(left, longestTick), undefined, { signal })
  }
  signal.throwIfAborted()
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep,
}

/**
 * Waits until the wall clock says `at` (milliseconds since the epoch). Looks again at least every
 * `tick` ms, so that a stepped clock is noticed.
 */
export async function sleepUntil(
  clock: Clock,
  at: number,
  { signal, tick = 10_000 }: { signal: AbortSignal; tick?: number },
): Promise<void> {
  for (let left = at - clock.now(); left > 0; left = at - clock.now()) {
    await clock.sleep(Math.min(left, tick), { signal })
  }
  signal.throwIfAborted()
}

// A limit of time by the injected clock.
import type { Clock } from '../runtime/clock.ts'

/** Calls `then` after `ms`, unless the returned function was called. */
export function after(clock: Clock, ms: number, then: () => void): () => void {
  const stop = new AbortController()
  clock.sleep(ms, { signal: stop.signal }).then(then, () => {})
  return () => stop.abort()
}

// What one connection may do that nobody gains by: cancel what it has begun, or send what asks nothing.
import { broken, errors } from './frames.ts'

export interface Patience {
  /** A stream was cancelled before it was answered (CVE-2023-44487). */
  cancelled(): void
  /** A frame that brings no question on. */
  idle(): void
  /** A question was answered. */
  busy(): void
}

// as node:http2 counts them: so many at once, so many a second after that
const mostCancelled = 1000
const cancelledPerSecond = 33
const mostIdle = 10_000

export function createPatience(now: () => number): Patience {
  let [tokens, at, idle] = [mostCancelled, now(), 0]
  return {
    cancelled() {
      const time = now()
      tokens = Math.min(mostCancelled, tokens + ((time - at) / 1000) * cancelledPerSecond)
      at = time
      if (tokens < 1) throw broken(errors.calm, 'too many streams are cancelled')
      tokens--
    },
    idle() {
      if (++idle > mostIdle) throw broken(errors.calm, 'too many frames that ask nothing')
    },
    busy() {
      idle = 0
    },
  }
}

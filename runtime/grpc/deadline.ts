// Deadlines of calls: reading grpc-timeout, and one timer for all the calls of a server.
import { IdentityError } from '../../spiffe/errors.ts'
import type { Clock } from '../clock.ts'

const milliseconds: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
}

/** The milliseconds of a grpc-timeout header. */
export function parseTimeout(text: string): number {
  const [, digits, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(text) ?? []
  const factor = milliseconds[unit]
  if (digits === undefined || factor === undefined) {
    throw new IdentityError('ERR_BAD_REQUEST', 'grpc-timeout is not a number with a unit')
  }
  return Number(digits) * factor
}

export interface Deadlines extends Disposable {
  /** Calls `expire` once `ms` have passed, unless the returned entry is removed first. */
  add(ms: number, expire: () => void): Deadline
  remove(deadline: Deadline): void
}

export interface Deadline {
  readonly at: number
  readonly expire: () => void
}

/**
 * A timer per call costs more than the rest of a small call, and most calls end in time: so the
 * earliest deadline alone is slept for, and one that was removed is noticed on waking.
 */
export function createDeadlines(clock: Clock): Deadlines {
  const waiting = new Set<Deadline>()
  let asleep: { until: number; wake: AbortController } | undefined

  function expireDue(): void {
    const now = clock.monotonic()
    for (const deadline of waiting) {
      if (deadline.at > now) continue
      waiting.delete(deadline)
      deadline.expire()
    }
  }

  async function sleepUntil(until: number): Promise<void> {
    const wake = new AbortController()
    asleep?.wake.abort()
    asleep = { until, wake }
    try {
      await clock.sleep(Math.max(1, until - clock.monotonic()), { signal: wake.signal })
    } catch (error) {
      if (wake.signal.aborted) return
      throw error
    }
    asleep = undefined
    expireDue()
    let earliest = Number.POSITIVE_INFINITY
    for (const { at } of waiting) earliest = Math.min(earliest, at)
    if (waiting.size > 0 && asleep === undefined) void sleepUntil(earliest)
  }

  return {
    add(ms, expire) {
      const deadline = { at: clock.monotonic() + ms, expire }
      waiting.add(deadline)
      if (asleep === undefined || deadline.at < asleep.until) void sleepUntil(deadline.at)
      return deadline
    },
    remove(deadline) {
      waiting.delete(deadline)
    },
    [Symbol.dispose]() {
      waiting.clear()
      asleep?.wake.abort()
      asleep = undefined
    },
  }
}

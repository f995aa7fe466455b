// Waiting for answers that others give, never for longer than was agreed.
import type { Clock } from '../../runtime/clock.ts'

/** Rejects with the signal's reason when it is aborted before `work` is done; the work goes on. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => reject(signal.reason)
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort, { once: true })
  return Promise.race([work, promise]).finally(() => signal.removeEventListener('abort', abort))
}

export interface Patience {
  readonly clock: Clock
  /** milliseconds for all attempts; 0 is one attempt */
  readonly wait: number
  /** milliseconds between attempts */
  readonly interval: number
  readonly signal: AbortSignal
}

/** Asks until there is an answer. Undefined when there was none; throws what the last attempt threw. */
export async function askUntilAnswered<T>(
  ask: () => Promise<T | undefined>,
  { clock, wait, interval, signal }: Patience,
): Promise<T | undefined> {
  const end = clock.monotonic() + wait
  while (true) {
    const attempt = ask()
    const [{ status }] = await Promise.allSettled([attempt])
    signal.throwIfAborted()
    const isLast = clock.monotonic() + interval > end
    const answer = status === 'rejected' && !isLast ? undefined : await attempt
    if (answer !== undefined || isLast) return answer
    await clock.sleep(interval, { signal })
  }
}

// What a program that we did not write does in its own time.
import { systemClock } from '../../runtime/clock.ts'

const patience = 150_000

/** Tries again until it succeeds; the last failure when it does not. */
export async function eventually<T>(what: string, attempt: () => Promise<T>): Promise<T> {
  const end = systemClock.monotonic() + patience
  const signal = AbortSignal.timeout(2 * patience)
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (systemClock.monotonic() > end) throw new Error(`${what}: ${String(error)}`)
      await systemClock.sleep(200, { signal })
    }
  }
}

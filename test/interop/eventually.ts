// What a program that we did not write does in its own time, which nothing tells us of: it is looked at again.
import { systemClock } from '../../runtime/clock.ts'

const patience = 150_000
const interval = 100

const rest = () => systemClock.sleep(interval, { signal: AbortSignal.timeout(patience) })

/** Tries again until it succeeds; the last failure when it does not. */
export async function eventually<T>(what: string, attempt: () => Promise<T>): Promise<T> {
  const end = systemClock.monotonic() + patience
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (systemClock.monotonic() > end) throw new Error(`${what}: ${String(error)}`)
      await rest()
    }
  }
}

/** Looks again until it holds; a look that throws ends it. */
export async function until(what: string, look: () => Promise<boolean>): Promise<void> {
  const end = systemClock.monotonic() + patience
  while (!(await look())) {
    if (systemClock.monotonic() > end) throw new Error(`in vain: ${what}`)
    await rest()
  }
}

/** What it resolves to, or an error that names what was waited for in vain. */
export async function inTime<T>(what: string, awaited: Promise<T>): Promise<T> {
  const over = Promise.withResolvers<never>()
  const timer = setTimeout(() => over.reject(new Error(`in vain: ${what}`)), patience)
  try {
    return await Promise.race([awaited, over.promise])
  } finally {
    clearTimeout(timer)
  }
}

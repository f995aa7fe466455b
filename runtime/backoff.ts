// How long to wait before trying again: exponential, capped, full jitter.

export interface Backoff {
  /** milliseconds to wait before the next attempt; grows with each call */
  next(): number
  /** after a success */
  reset(): void
}

export interface BackoffOptions {
  /** milliseconds */
  readonly first?: number
  readonly cap?: number
  /** uniform in [0, 1) */
  readonly random?: () => number
}

/** Never waits less than a tenth of the step, so that full jitter cannot become a busy loop. */
export function createBackoff(options: BackoffOptions = {}): Backoff {
  const { first = 250, cap = 30_000, random = Math.random } = options
  let step = first
  return {
    next() {
      const wait = step * (0.1 + 0.9 * random())
      step = Math.min(step * 2, cap)
      return wait
    },
    reset() {
      step = first
    },
  }
}

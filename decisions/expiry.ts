// Policies that end by themselves: when the clock says so the set is made anew, and what is under way decided
// again.

import { type Clock, sleepUntil } from '../runtime/clock.ts'
import { type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { Mesh } from './mesh.ts'

export interface ExpiryOptions {
  readonly mesh: Mesh
  readonly clock: Clock
  readonly log: Log
}

function expire({ mesh, clock, log }: ExpiryOptions): void {
  const state = mesh.current()
  mesh.put({ ...state, policies: state.policies.at(clock.now()) })
  log.info('a policy has expired')
}

const never = Number.POSITIVE_INFINITY

/** Whether that time has come before `signal` was aborted. */
async function isReached(
  at: number | undefined,
  clock: Clock,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    if (at === undefined) await clock.sleep(never, { signal })
    else await sleepUntil(clock, at, { signal })
    return true
  } catch (error) {
    if (!signal.aborted) throw error
    return false
  }
}

export function startExpiry(options: ExpiryOptions): Running {
  const { mesh, clock } = options
  return run(async (stop) => {
    while (!stop.aborted) {
      const { changesAt } = mesh.current().policies
      const changed = new AbortController()
      using _ = mesh.subscribe(() => changed.abort())
      const signal = AbortSignal.any([stop, changed.signal])
      if (await isReached(changesAt, clock, signal)) expire(options)
    }
  })
}

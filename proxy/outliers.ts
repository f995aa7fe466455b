// Endpoints that fail are left out for a while, as Envoy does it: at once after so many failures in a row, for a time
// that grows with each repetition, back at the first look after it. Nothing runs: what looks would have done is
// reckoned when somebody asks.
import type { Outliers } from '../proxy-spec/outbound.ts'

export interface Ejections {
  isOut(key: string): boolean
  /** How a request or connection went; true when the endpoint is left out from now on. */
  judge(key: string, isWell: boolean): boolean
  forget(key: string): void
}

export interface EjectionsOptions {
  readonly spec: Outliers
  /** milliseconds that never step */
  readonly now: () => number
  /** how many endpoints there are */
  readonly count: () => number
}

interface State {
  /** in a row */
  failures: number
  /** how often it was left out, less one for each look at which it was in */
  times: number
  /** since when it is left out */
  since: number | undefined
  /** the last look that is reckoned with */
  look: number
}

// Envoy's max_ejection_time, where nothing else is said
const longest = 300_000

function mostOut(count: number, { maxEjected }: Outliers): number {
  return Math.max(count > 1 ? 1 : 0, Math.floor((count * maxEjected) / 100))
}

export function createEjections({ spec, now, count }: EjectionsOptions): Ejections {
  const { consecutiveFailures, interval, ejection } = spec
  const origin = now()
  const states = new Map<string, State>()
  const lookAt = (time: number) => Math.floor((time - origin) / interval)

  /** What the looks since the last time have done. */
  function settle(state: State): State {
    const look = lookAt(now())
    let since = state.look
    if (state.since !== undefined) {
      const wait = Math.min(ejection * state.times, Math.max(ejection, longest))
      const back = Math.ceil((state.since + wait - origin) / interval)
      if (look < back) return state
      state.since = undefined
      state.failures = 0
      since = back
    }
    state.times = Math.max(0, state.times - Math.max(0, look - since))
    state.look = look
    return state
  }

  function stateOf(key: string): State {
    const known = states.get(key)
    if (known !== undefined) return settle(known)
    const fresh = { failures: 0, times: 0, since: undefined, look: lookAt(now()) }
    states.set(key, fresh)
    return fresh
  }

  const out = () => [...states.values()].filter((it) => settle(it).since !== undefined).length

  return {
    isOut(key) {
      const state = states.get(key)
      return state !== undefined && settle(state).since !== undefined
    },
    judge(key, isWell) {
      if (isWell && !states.has(key)) return false
      const state = stateOf(key)
      state.failures = isWell ? 0 : state.failures + 1
      if (state.failures < consecutiveFailures || state.since !== undefined) return false
      state.failures = 0
      if (out() >= mostOut(count(), spec)) return false
      state.times++
      state.since = now()
      return true
    },
    forget: (key) => void states.delete(key),
  }
}

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEjections } from '../../proxy/outliers.ts'
import type { Outliers } from '../../proxy-spec/outbound.ts'

/** The same as a loop that looks at every interval would do it. */
function createLoop(spec: Outliers, count: number) {
  const states = new Map<string, { failures: number; times: number; since?: number }>()
  let [now, looked] = [0, 0]
  const stateOf = (key: string) => {
    const state = states.get(key) ?? { failures: 0, times: 0 }
    states.set(key, state)
    return state
  }
  return {
    pass(ms: number) {
      for (now += ms; looked + spec.interval <= now; ) {
        looked += spec.interval
        for (const state of states.values()) {
          if (state.since === undefined) state.times = Math.max(0, state.times - 1)
          else if (
            state.since + Math.min(spec.ejection * state.times, Math.max(spec.ejection, 300_000)) <=
            looked
          ) {
            delete state.since
            state.failures = 0
          }
        }
      }
    },
    isOut: (key: string) => stateOf(key).since !== undefined,
    judge(key: string, isWell: boolean) {
      const state = stateOf(key)
      state.failures = isWell ? 0 : state.failures + 1
      if (state.since !== undefined || state.failures < spec.consecutiveFailures) return
      state.failures = 0
      const out = [...states.values()].filter((it) => it.since !== undefined).length
      const most = Math.max(count > 1 ? 1 : 0, Math.floor((count * spec.maxEjected) / 100))
      if (out >= most) return
      state.times++
      state.since = now
    },
  }
}

const keys = ['a', 'b', 'c', 'd', 'e']
const spec: fc.Arbitrary<Outliers> = fc.record({
  consecutiveFailures: fc.integer({ min: 1, max: 4 }),
  interval: fc.integer({ min: 1, max: 50 }),
  ejection: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.constant(250_000)),
  maxEjected: fc.integer({ min: 0, max: 100 }),
})
const steps = fc.array(
  fc.oneof(
    fc.record({ ms: fc.oneof(fc.nat(60), fc.nat(400)) }),
    fc.record({ key: fc.constantFrom(...keys), isWell: fc.boolean() }),
    fc.record({ key: fc.constantFrom(...keys), isWell: fc.constant(false) }),
  ),
  { maxLength: 80 },
)

describe('ejections', () => {
  it('are what a loop that looks at every interval would make of the same', () => {
    fc.assert(
      fc.property(spec, steps, fc.integer({ min: 1, max: keys.length }), (its, all, count) => {
        let now = 1_000
        const names = keys.slice(0, count)
        const ejections = createEjections({ spec: its, now: () => now, count: () => count })
        const loop = createLoop(its, count)
        for (const it of all) {
          if ('ms' in it) {
            now += it.ms
            loop.pass(it.ms)
          } else if (names.includes(it.key)) {
            ejections.judge(it.key, it.isWell)
            loop.judge(it.key, it.isWell)
          }
          // not each time: what is reckoned late has to come out the same
          if (now % 3 === 0)
            expect(names.map(ejections.isOut)).toEqual(names.map((key) => loop.isOut(key)))
        }
        expect(names.map(ejections.isOut)).toEqual(names.map((key) => loop.isOut(key)))
      }),
      { numRuns: 400 },
    )
  })

  it('last longer each time, up to five minutes, and less again after a while without', () => {
    let now = 0
    const its = { consecutiveFailures: 1, interval: 1000, ejection: 100_000, maxEjected: 50 }
    const ejections = createEjections({ spec: its, now: () => now, count: () => 2 })
    const durations: number[] = []
    const eject = () => {
      const from = now
      expect(ejections.judge('a', false)).toBe(true)
      while (ejections.isOut('a')) now += 500
      durations.push(now - from)
    }
    for (let i = 0; i < 4; i++) eject()
    now += 10_000_000
    eject()
    expect(durations).toEqual([100_000, 200_000, 300_000, 300_000, 100_000])
  })

  it('are of failures in a row, of no only endpoint, and forgotten with it', () => {
    const its = { consecutiveFailures: 2, interval: 10, ejection: 10, maxEjected: 0 }
    const of = (count: number) => createEjections({ spec: its, now: () => 0, count: () => count })
    const two = of(2)
    expect([false, true, false, false].map((isWell) => two.judge('a', isWell))).toEqual([
      ...[false, false, false],
      true,
    ])
    expect([two.judge('b', false), two.judge('b', false), two.isOut('b')]).toEqual([
      ...[false, false],
      false,
    ])
    two.forget('a')
    expect(two.isOut('a')).toBe(false)
    const sole = of(1)
    expect([sole.judge('a', false), sole.judge('a', false)]).toEqual([false, false])
  })
})

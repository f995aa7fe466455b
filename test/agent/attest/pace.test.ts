import { describe, expect, it } from 'vitest'
import { createPace } from '../../../agent/attest/pace.ts'
import { memoryLog } from '../../support/ca.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { refusalOf } from '../../support/refusal.ts'

function start({ perSecond = 10, atOnce = 20 } = {}) {
  const clock = createFakeClock()
  const { log, lines } = memoryLog()
  const pace = createPace({ perSecond, atOnce, clock, log })
  /** how many of `count` calls are let in */
  const calls = (uid: number, count: number) => {
    let admitted = 0
    for (let i = 0; i < count; i++) if (refusalOf(() => pace(uid)) === undefined) admitted++
    return admitted
  }
  return { clock, lines, pace, calls }
}

describe('calls of one user', () => {
  it('may come at once up to a number, then as many as the time lets in; others go on', async () => {
    const { calls, clock } = start()
    expect(calls(1000, 100)).toBe(20)
    expect(calls(1001, 20)).toBe(20)
    await clock.advance(500)
    expect(calls(1000, 100)).toBe(5)
    await clock.advance(3_600_000)
    expect(calls(1000, 100)).toBe(20)
  })

  it('that are refused are told when to come again', () => {
    const { calls, pace } = start()
    calls(1000, 20)
    expect(() => pace(1000)).toThrow(
      expect.objectContaining({
        code: 'ERR_EXHAUSTED',
        message: 'user 1000 calls more often than 10 times a second',
        retryAfter: 1000,
      }),
    )
  })

  it('that are refused are logged once, and again after a quiet while', async () => {
    const { calls, clock, lines } = start()
    for (let second = 0; second < 10; second++) {
      calls(1000, 100)
      await clock.advance(1000)
    }
    expect(lines).toEqual([expect.stringContaining('calls are refused: user 1000')])
    await clock.advance(2000)
    calls(1000, 100)
    expect(lines).toHaveLength(2)
  })

  it('of thousands of users are counted each for itself', async () => {
    const { calls, clock } = start({ perSecond: 1, atOnce: 2 })
    for (let uid = 0; uid < 3000; uid++) expect(calls(uid, 3)).toBe(2)
    expect(calls(0, 1)).toBe(0)
    await clock.advance(1000)
    expect(calls(3000, 3)).toBe(2)
    expect(calls(0, 3)).toBe(1)
  })
})

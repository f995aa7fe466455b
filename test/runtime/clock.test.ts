import { describe, expect, it } from 'vitest'
import { sleepUntil, systemClock } from '../../runtime/clock.ts'
import { createFakeClock } from '../support/fake-clock.ts'

const start = 1_900_000_000_000

describe('the system’s clock', () => {
  it('sleeps at least as long as asked, and no time at all for what is past', async () => {
    const { signal } = new AbortController()
    const before = systemClock.monotonic()
    await systemClock.sleep(5, { signal })
    expect(systemClock.monotonic() - before).toBeGreaterThanOrEqual(4)
    await systemClock.sleep(-1, { signal })
    const earliest = Date.now()
    const now = systemClock.now()
    expect([earliest <= now, now <= Date.now()]).toEqual([true, true])
  })

  it('wakes with the reason of its signal, also from a sleep longer than timers can', async () => {
    const stop = new AbortController()
    const reason = new Error('enough')
    const asleep = systemClock.sleep(2 ** 40, { signal: stop.signal })
    stop.abort(reason)
    await expect(asleep).rejects.toMatchObject({ name: 'AbortError', cause: reason })
    await expect(systemClock.sleep(0, { signal: stop.signal })).rejects.toBe(reason)
  })
})

describe('waiting for an instant', () => {
  it('ends when the clock says so, looking again in between', async () => {
    const clock = createFakeClock(start)
    const { signal } = new AbortController()
    let woke = false
    const waiting = sleepUntil(clock, start + 25_000, { signal }).then(() => {
      woke = true
    })
    await clock.advance(24_999)
    expect(woke).toBe(false)
    await clock.advance(1)
    await waiting
    expect(woke).toBe(true)
    expect(clock.sleepers).toBe(0)
  })

  it('is over at once for the past, and not when it was stopped', async () => {
    const clock = createFakeClock(start)
    await sleepUntil(clock, start, { signal: new AbortController().signal })
    const reason = new Error('stopped')
    await expect(sleepUntil(clock, start - 1, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    )
  })
})

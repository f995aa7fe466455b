// One life for all that differ little.
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createLives } from '../../../agent/proxies/lives.ts'

it('is never longer than the newest life, nor less than 45 % of it', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1000, max: 10_000_000 }), { minLength: 1 }), (all) => {
      const steady = createLives()
      for (const life of all) {
        const used = steady('web', life)
        expect(used).toBeLessThanOrEqual(life)
        expect(used).toBeGreaterThanOrEqual(Math.floor(life * 0.45))
      }
    }),
  )
})

it('stays what it is through the whole seconds that certificates are cut to', () => {
  const steady = createLives()
  const lives = [14_000, 13_000, 14_000, 13_000].map((life) => steady('web', life))
  expect(new Set(lives).size).toBe(1)
})

it('is shorter once certificates are, and each proxy has its own', () => {
  const steady = createLives()
  const hour = steady('web', 3_600_000)
  expect(steady('web', 60_000)).toBeLessThanOrEqual(60_000)
  expect(steady('other', 3_600_000)).toBe(hour)
})

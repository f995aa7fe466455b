import { describe, expect, it } from 'vitest'
import { createSerials } from '../../ca/serials.ts'

describe('serials', () => {
  it('are 16 bytes, positive, and never twice the same', () => {
    const [next, other] = [createSerials(), createSerials()]
    const all = Array.from({ length: 2000 }, (_, i) => (i % 2 === 0 ? next() : other()))
    expect(new Set(all.map((it) => Buffer.from(it).toString('hex'))).size).toBe(all.length)
    for (const serial of all) {
      expect(serial).toHaveLength(16)
      expect(serial[0] ?? 0).toBeGreaterThanOrEqual(0x40)
      expect(serial[0] ?? 0xff).toBeLessThan(0x80)
    }
  })

  it('belong to whom they were given to', () => {
    const next = createSerials()
    const [one, two] = [next(), next()]
    const kept = Buffer.from(two)
    one.fill(0)
    expect(two).toEqual(new Uint8Array(kept))
  })

  it('spread over all bits but the two that are fixed', () => {
    const next = createSerials()
    const all = Array.from({ length: 400 }, next)
    for (let bit = 2; bit < 128; bit++) {
      const ones = all.filter((it) => ((it[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0).length
      // 8 sigma around 200
      expect(Math.abs(ones - 200)).toBeLessThan(80)
    }
  })
})

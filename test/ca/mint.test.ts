import { describe, expect, it } from 'vitest'
import { createMint } from '../../ca/mint.ts'

describe('a mint', () => {
  const refused = new TypeError('a coin that is forged or already spent')

  it('makes what can be looked at many times and spent once', () => {
    const coins = createMint<'coin', { value: number }>('coin')
    const coin = coins.mint({ value: 5 })
    expect(coin.value).toBe(5)
    coins.check(coin)
    coins.check(coin)
    coins.spend(coin)
    expect(() => coins.spend(coin)).toThrow(refused)
    expect(() => coins.check(coin)).toThrow(refused)
  })

  it('knows what it has not made: a copy, an heir, the coin of another mint of that name', () => {
    const coins = createMint<'coin', { value: number }>('coin')
    const coin = coins.mint({ value: 5 })
    const heir: typeof coin = Object.create(coin)
    const foreign = createMint<'coin', { value: number }>('coin').mint({ value: 5 })
    for (const forged of [{ ...coin }, heir, foreign]) {
      expect(() => coins.check(forged)).toThrow(refused)
      expect(() => coins.spend(forged)).toThrow(refused)
    }
    coins.spend(coin)
  })

  it('freezes what it makes', () => {
    const coins = createMint<'coin', { value: number }>('coin')
    const coin = coins.mint({ value: 5 })
    expect(() => Object.assign(coin, { value: 6 })).toThrow(TypeError)
    expect(coin.value).toBe(5)
  })
})

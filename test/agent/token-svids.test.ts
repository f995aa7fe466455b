import { expect, it } from 'vitest'
import { createTokenCache } from '../../agent/token-svids.ts'
import { noTaints } from '../../agent/trust.ts'
import { createFakeClock } from '../support/fake-clock.ts'

const minute = 60_000

function start(most: number) {
  const clock = createFakeClock()
  const minted: string[] = []
  const cache = createTokenCache({ clock, taints: () => noTaints, most })
  return {
    ...{ clock, cache, minted },
    /** lives `minutes` when it has to be minted */
    async get(name: string, minutes = 5) {
      const mint = async () => {
        minted.push(name)
        return { token: `${name} ${minted.length}`, expiresAt: clock.now() + minutes * minute }
      }
      return (await cache.get(name, mint)).token
    },
  }
}

it('R20 of a full cache, a token that is renewed pushes no other one out', async () => {
  const { clock, cache, minted, get } = start(2)
  const long = await get('long', 500)
  const short = await get('short')
  await clock.advance(4 * minute)
  expect(await get('short'), 'past its renewal').not.toBe(short)
  expect(cache.kept().map(({ key }) => key)).toEqual(['long', 'short'])
  expect(await get('long')).toBe(long)
  expect(minted).toEqual(['long', 'short', 'short'])
})

it('of a full cache, a new token pushes out the one that was not asked for longest', async () => {
  const { cache, get } = start(2)
  await get('first')
  await get('second')
  await get('first')
  await get('third')
  expect(cache.kept().map(({ key }) => key)).toEqual(['first', 'third'])
})

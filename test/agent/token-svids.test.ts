import { expect, it } from 'vitest'
import { createTokenCache } from '../../agent/token-svids.ts'
import { noTaints } from '../../agent/trust.ts'
import { createFakeClock } from '../support/fake-clock.ts'

const minute = 60_000

function start(most: number) {
  const clock = createFakeClock()
  const minted: string[] = []
  const revoked = new Set<string>()
  const isBelieved = (keyId: string) => !revoked.has(keyId)
  const cache = createTokenCache({ clock, taints: () => noTaints, isBelieved, most })
  return {
    ...{ clock, cache, minted, revoked },
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

it('by a key that was revoked it is given to nobody any more', async () => {
  const { cache, clock, revoked } = start(2)
  const header = (kid: string) =>
    Buffer.from(JSON.stringify({ alg: 'ES256', kid })).toString('base64url')
  let kid = 'old'
  const mint = async () => ({ token: `${header(kid)}.e.s`, expiresAt: clock.now() + 5 * minute })
  const first = await cache.get('one', mint)
  kid = 'new'
  expect(await cache.get('one', mint)).toEqual(first)
  revoked.add('old')
  expect((await cache.get('one', mint)).token).toBe(`${header('new')}.e.s`)
})

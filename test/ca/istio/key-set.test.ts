// When the keys of an issuer are read, and what happens when they cannot be.
import { decodeProtectedHeader, jwtVerify } from 'jose'
import { beforeEach, expect, test } from 'vitest'
import { createKeySet } from '../../../ca/istio/key-set.ts'
import { hasCode } from '../../../spiffe/errors.ts'
import { createFakeClock, type FakeClock } from '../../support/fake-clock.ts'
import { createTestIssuer } from '../../support/token-issuer.ts'

const minute = 60_000
let clock: FakeClock
let published: string | Error
let reads: number
let failures: number
beforeEach(() => {
  clock = createFakeClock()
  reads = 0
  failures = 0
})

const keySet = () =>
  createKeySet({
    clock,
    onFailure: () => failures++,
    async load() {
      reads++
      if (published instanceof Error) throw published
      return published
    },
  })

async function outcome(keys: ReturnType<typeof keySet>, token: string): Promise<string> {
  try {
    const { protectedHeader } = await jwtVerify(token, keys)
    return `good by ${protectedHeader.kid}`
  } catch (error) {
    if (hasCode(error)) return error.code
    return error instanceof Error && 'code' in error ? String(error.code) : String(error)
  }
}

test('keys are read once for many tokens, and again when they are five minutes old', async () => {
  const issuer = await createTestIssuer()
  published = issuer.jwks
  const keys = keySet()
  const token = await issuer.token()
  const first = Array.from({ length: 20 }, () => outcome(keys, token))
  expect(new Set(await Promise.all(first))).toEqual(new Set(['good by key-1']))
  expect(reads).toBe(1)
  await clock.advance(5 * minute)
  expect(await outcome(keys, token)).toBe('good by key-1')
  expect(reads).toBe(2)
})

test('a new key is found at its first use; made-up ones cause a read each ten seconds at most', async () => {
  const [first, second] = [
    await createTestIssuer('https://a.example', { kid: 'first' }),
    await createTestIssuer('https://a.example', { kid: 'second' }),
  ]
  published = first.jwks
  const keys = keySet()
  expect(await outcome(keys, await first.token())).toBe('good by first')
  published = JSON.stringify({
    keys: [first, second].flatMap(({ jwks }) => JSON.parse(jwks).keys),
  })
  const token = await second.token()
  expect(decodeProtectedHeader(token).kid).toBe('second')
  expect(await outcome(keys, token)).toBe('ERR_JWKS_NO_MATCHING_KEY')
  await clock.advance(10_000)
  expect(await outcome(keys, token)).toBe('good by second')
  expect(reads).toBe(2)
  const madeUp = await first.token({}, { kid: 'made-up' })
  for (let i = 0; i < 20; i++) expect(await outcome(keys, madeUp)).toMatch(/^ERR_JWKS/)
  expect(reads).toBe(2)
})

test('while they cannot be read the last ones serve for a day, then nothing is believed', async () => {
  const issuer = await createTestIssuer()
  const token = await issuer.token({ exp: undefined })
  published = issuer.jwks
  const keys = keySet()
  expect(await outcome(keys, token)).toBe('good by key-1')
  published = new Error('unreachable')
  await clock.advance(23 * 60 * minute)
  expect(await outcome(keys, token)).toBe('good by key-1')
  expect(failures).toBe(1)
  await clock.advance(60 * minute)
  expect(await outcome(keys, token)).toBe('ERR_UNAVAILABLE')
  published = issuer.jwks
  await clock.advance(10_000)
  expect(await outcome(keys, token)).toBe('good by key-1')
})

const broken = [
  '',
  '{',
  '[]',
  '{"keys":1}',
  '{"keys":[{}]}',
  `{"keys":[${'{"kty":"EC"},'.repeat(100)}{"kty":"EC"}]}`,
]
test.each(broken)('what is no key set is not used: %#', async (text) => {
  const issuer = await createTestIssuer()
  published = text
  const keys = keySet()
  expect(await outcome(keys, await issuer.token())).toBe('ERR_UNAVAILABLE')
  published = issuer.jwks
  await clock.advance(10_000)
  expect(await outcome(keys, await issuer.token())).toBe('good by key-1')
})

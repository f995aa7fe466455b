// Single tokens: which signatures, times and audiences hold, and what is never looked at.
import { createHmac } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { readJwks } from '../../../policies/tokens/jwks.ts'
import { type Expected, issuerOf, verifyToken } from '../../../policies/tokens/verify.ts'
import { createTestIssuer, type TestIssuer } from '../../support/token-issuer.ts'

const name = 'https://issuer.example'
const now = Date.parse('2030-01-01T00:00:00Z')
const seconds = now / 1000

function keysIn(jwks: string): NonNullable<Expected['keys']> {
  const read = readJwks(jwks)
  if (!read.ok) throw new Error(read.problem)
  return read.keys
}

let issuer: TestIssuer
beforeAll(async () => {
  issuer = await createTestIssuer(name, { alg: 'ES256', now })
})

/** The reason for refusing; undefined for a token that holds. */
function refusal(token: string, expected: Partial<Expected> = {}, at = now): string | undefined {
  const wanted = { issuer: name, audiences: undefined, keys: keysIn(issuer.jwks), ...expected }
  const verified = verifyToken(token, wanted, at)
  return verified.ok ? undefined : verified.reason
}

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

describe('signatures', () => {
  const all = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512']
  it.each([...all, 'EdDSA'])('%s holds, and not with a byte changed', async (alg) => {
    const its = await createTestIssuer(name, { alg, now })
    const keys = keysIn(its.jwks)
    const token = await its.token()
    expect(refusal(token, { keys })).toBeUndefined()
    const dot = token.lastIndexOf('.')
    const other = token[dot + 10] === 'A' ? 'B' : 'A'
    const changed = `${token.slice(0, dot + 10)}${other}${token.slice(dot + 11)}`
    expect(refusal(changed, { keys })).toBe('its signature is wrong')
  })

  it('without one, or made with the public key as a secret, are not looked at', async () => {
    const claims = { iss: name, sub: 's', exp: seconds + 60 }
    const body = (alg: string) => `${base64url({ alg, kid: 'key-1' })}.${base64url(claims)}`
    const mac = createHmac('sha256', issuer.jwks).update(body('HS256')).digest('base64url')
    for (const token of [`${body('HS256')}.${mac}`, `${body('none')}.`, `${body('none')}.AA`]) {
      expect(refusal(token)).toBeTypeOf('string')
      expect(refusal(token)).not.toContain(token)
    }
    expect(refusal(`${body('HS256')}.${mac}`)).toBe('its algorithm is not accepted')
  })

  it('with an extension that has to be understood are refused', async () => {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const keys = keysIn(JSON.stringify({ keys: [await exportJWK(publicKey)] }))
    const signed = (header: object) =>
      new SignJWT({ iss: name }).setProtectedHeader({ alg: 'ES256', ...header }).sign(privateKey, {
        crit: { mark: true },
      })
    expect(refusal(await signed({}), { keys })).toBeUndefined()
    const critical = await signed({ crit: ['mark'], mark: 1 })
    expect(refusal(critical, { keys })).toMatch(/\(crit\)/)
  })

  it('are tried with the key of that name, kind and algorithm alone', async () => {
    const token = await issuer.token()
    const [key] = keysIn(issuer.jwks)
    if (key === undefined) throw new Error('no key')
    const none = 'no key of its issuer has its key id and algorithm'
    const others = [
      { ...key, keyId: 'key-2' },
      { ...key, algorithm: 'ES384' },
    ]
    expect(refusal(token, { keys: others })).toBe(none)
    expect(refusal(token, { keys: [] })).toBe(none)
    const rsa = await createTestIssuer(name, { alg: 'RS256', now })
    const confused = keysIn(rsa.jwks).map((it) => ({ ...it, algorithm: undefined }))
    expect(refusal(token, { keys: confused })).toBe(none)
    // where either does not name it, all of the kind are tried
    const unnamed = { ...key, keyId: undefined, algorithm: undefined }
    expect(refusal(token, { keys: [...others, unnamed] })).toBeUndefined()
    expect(refusal(await issuer.token({}, { kid: undefined }), { keys: others.slice(0, 1) })).toBe(
      undefined,
    )
  })

  it('hold for nobody while the keys cannot be had', async () => {
    expect(refusal(await issuer.token(), { keys: undefined })).toBe(
      'the keys of its issuer cannot be had at present',
    )
  })
})

describe('claims', () => {
  it.each<[object, string | undefined]>([
    [{ exp: seconds - 59 }, undefined],
    [{ exp: seconds - 61 }, 'it has expired'],
    [{ exp: undefined }, undefined],
    [{ exp: '4102444800' }, 'its exp is no number'],
    [{ nbf: seconds + 59 }, undefined],
    [{ nbf: seconds + 61 }, 'it is not valid yet'],
    [{ iat: 'today' }, 'its iat is no number'],
    [{ iss: 'https://issuer.example/' }, 'of another issuer'],
    [{ iss: undefined }, 'of another issuer'],
  ])('%j: %s', async (claims, reason) => {
    expect(refusal(await issuer.token({ ...claims }))).toBe(reason)
  })

  it.each<[unknown, boolean]>([
    ['svc', true],
    [['x', 'svc'], true],
    [['x'], false],
    ['svc2', false],
    [undefined, false],
    [[], false],
  ])('for the audience %j: %s', async (aud, holds) => {
    const token = await issuer.token({ aud })
    const wanted = { issuer: name, audiences: ['svc', 'other'], keys: keysIn(issuer.jwks) }
    const verified = verifyToken(token, wanted, now)
    expect(verified.ok).toBe(holds)
    if (!verified.ok) expect(verified.problem).toBe('audience')
  })

  it('of any issuer, where none is named', async () => {
    const token = await issuer.token({ iss: 'https://whoever.example' })
    expect(refusal(token, { issuer: undefined })).toBeUndefined()
  })
})

it.each([
  '',
  '.',
  'a.b',
  'a.b.c',
  'a.b.c.d',
  `${base64url({ alg: 'ES256' })}.e30=.AA`,
  `${base64url([])}.${base64url({})}.AA`,
  `${Buffer.from('{"alg":"ES256","alg":"none"}').toString('base64url')}.${base64url({})}.AA`,
])('what is no token is refused, and names no issuer: %j', (token) => {
  expect(refusal(token, { issuer: undefined })).toBeTypeOf('string')
})

it('says whom a token names as its issuer before anything is verified', async () => {
  expect(issuerOf(await issuer.token())).toBe(name)
  expect(issuerOf(await issuer.token({ iss: 7 }))).toBe('')
  expect(issuerOf('a.b.c')).toBeUndefined()
})

import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { type JwtBundles, type JwtSource, startJwtSource } from '../../client/jwt-source.ts'
import type {
  JWTBundlesResponseSchema,
  JWTSVIDRequest,
} from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { type Handlers, watch } from './workload-api.ts'

type Answer = MessageInitShape<typeof JWTBundlesResponseSchema>

const minute = 60_000
const me = parseSpiffeId('spiffe://td/me')
const td = parseTrustDomain('td')
const patience = () => AbortSignal.timeout(60_000)

function issuer(kid: string) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  return { kid, privateKey, jwk: { ...publicKey.export({ format: 'jwk' }), kid, use: 'jwt-svid' } }
}
const keys = issuer('k1')

interface Claims {
  readonly sub?: string
  readonly aud?: string | string[]
  /** milliseconds since the epoch */
  readonly exp: number
  readonly by?: { readonly kid: string; readonly privateKey: KeyObject }
}

function token({ sub = me, aud = ['a'], exp, by = keys }: Claims): Promise<string> {
  const claims = new SignJWT({ sub, aud, iat: 1, exp: exp / 1000 })
  return claims.setProtectedHeader({ alg: 'ES256', kid: by.kid, typ: 'JWT' }).sign(by.privateKey)
}

const jwks = (...jwks: readonly object[]) => Buffer.from(JSON.stringify({ keys: jwks }))
const bundles = (jwk: object = keys.jwk): Answer => ({ bundles: { 'spiffe://td': jwks(jwk) } })

/** A source, and a Workload API that counts who asks for tokens and answers with what the test sets. */
async function start(more: Handlers = {}) {
  const asked: JWTSVIDRequest[] = []
  const api = {
    ...{ asked, lifetime: 10 * minute, by: keys },
    answer: undefined as undefined | ((request: JWTSVIDRequest) => Promise<object>),
  }
  const watched = await watch<Answer, JwtBundles, JwtSource>({
    handlers: (fetchJWTBundles) => ({
      fetchJWTBundles,
      async fetchJWTSVID(request) {
        asked.push(request)
        if (api.answer !== undefined) return await api.answer(request)
        const { audience: aud } = request
        const sub = request.spiffeId || me
        const exp = watched.clock.now() + api.lifetime
        const svid = await token({ sub, aud, exp, by: api.by })
        return { svids: [{ spiffeId: sub, svid, hint: 'mine' }] }
      },
      ...more,
    }),
    start: startJwtSource,
  })
  return Object.assign(watched, { api })
}

const fail = (error: Error) => async () => {
  throw error
}

describe('tokens of a JWT source', () => {
  it('WA-18 WA-19 are of the default identity or of the one that is asked for', async () => {
    await using it = await start()
    const svid = await it.source.fetch('a')
    expect(svid).toMatchObject({ id: me, audience: ['a'], hint: 'mine' })
    expect(svid.expiresAt).toBe(it.clock.now() + 10 * minute)
    const other = parseSpiffeId('spiffe://td/other')
    expect((await it.source.fetch(['b', 'a', 'b'], { id: other })).id).toBe(other)
    expect(it.api.asked.map(({ audience, spiffeId }) => [audience, spiffeId])).toEqual([
      [['a'], ''],
      [['a', 'b'], other],
    ])
    for (const none of ['', [], ['a', '']]) {
      await expect(it.source.fetch(none)).rejects.toMatchObject({ code: 'ERR_BAD_REQUEST' })
    }
    expect(JSON.stringify(svid)).not.toContain(svid.token)
  })

  it('are used again until half of their life is over, whatever the order of the audience', async () => {
    await using it = await start()
    const first = await it.source.fetch(['a', 'b'])
    await it.clock.advance(5 * minute - 1)
    expect(await it.source.fetch(['b', 'a'])).toBe(first)
    expect((await it.source.fetch('a')).token).not.toBe(first.token)
    await it.clock.advance(1)
    expect((await it.source.fetch(['a', 'b'])).token).not.toBe(first.token)
    expect(it.api.asked).toHaveLength(3)
  })

  it('are asked for once by all who ask at one time', async () => {
    await using it = await start()
    const gate = Promise.withResolvers<void>()
    const { source, api } = it
    api.answer = async ({ audience: aud }) => {
      await gate.promise
      const svid = await token({ aud, exp: it.clock.now() + minute })
      return { svids: [{ spiffeId: me, svid }] }
    }
    const reason = new Error('enough')
    const stop = new AbortController()
    const waiting = [
      source.fetch('a'),
      source.fetch('a'),
      source.fetch('a', { signal: stop.signal }),
    ]
    const [one, two, three] = waiting
    three?.catch(() => {})
    stop.abort(reason)
    await expect(three).rejects.toBe(reason)
    gate.resolve()
    expect(await one).toBe(await two)
    expect(api.asked).toHaveLength(1)
  })

  it('WE-10 are kept while the agent is away, until they expire', async () => {
    await using it = await start()
    const first = await it.source.fetch('a')
    it.api.answer = fail(new IdentityError('ERR_UNAVAILABLE', 'later'))
    await it.clock.advance(6 * minute)
    expect(await it.source.fetch('a')).toBe(first)
    expect(await it.source.fetch('a')).toBe(first)
    // the second one had to wait until it was tried again
    expect(it.api.asked).toHaveLength(2)
    await it.clock.advance(minute)
    expect(await it.source.fetch('a')).toBe(first)
    expect(it.api.asked).toHaveLength(3)
    await it.clock.advance(3 * minute)
    await expect(it.source.fetch('a')).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
      message: 'later',
    })
    it.api.answer = undefined
    expect((await it.source.fetch('a')).token).not.toBe(first.token)
  })

  it('WA-15 are gone once the identity is', async () => {
    await using it = await start()
    await it.source.fetch('a')
    await it.clock.advance(6 * minute)
    it.api.answer = fail(new IdentityError('ERR_NO_IDENTITY', 'gone'))
    await expect(it.source.fetch('a')).rejects.toMatchObject({ code: 'ERR_NO_IDENTITY' })
    it.api.answer = undefined
    await it.source.fetch('a')
    it.say(bundles())
    await it.source.ready(patience())
    expect(await it.change(new IdentityError('ERR_NO_IDENTITY', 'gone'))).toBeUndefined()
    it.api.answer = fail(new IdentityError('ERR_UNAVAILABLE', 'later'))
    await expect(it.source.fetch('a')).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    await expect(it.source.verify('x', 'a')).rejects.toMatchObject({ code: 'ERR_NO_IDENTITY' })
  })

  it('are replaced when the key that signed them leaves the bundle', async () => {
    await using it = await start()
    it.say(bundles())
    await it.source.ready(patience())
    const first = await it.source.fetch('a')
    const next = issuer('k2')
    await it.change(bundles(next.jwk))
    it.api.by = next
    const second = await it.source.fetch('a')
    expect(second.token).not.toBe(first.token)
    expect(await it.source.fetch('a')).toBe(second)
  })

  it.each<[string, Partial<Claims>, string]>([
    [
      'of another identity',
      { sub: 'spiffe://td/you' },
      'the token of spiffe://td/me names spiffe://td/you',
    ],
    ['R11 without an audience', { aud: ['b'] }, 'the token of spiffe://td/me is not for a'],
    ['that is over', { exp: 1000 }, 'expired at 1970-01-01T00:00:01.000Z'],
  ])('R11 are refused: one %s', async (_, claims, message) => {
    await using it = await start()
    it.api.answer = async () => {
      const svid = await token({ exp: it.clock.now() + minute, ...claims })
      return { svids: [{ spiffeId: me, svid }] }
    }
    await expect(it.source.fetch('a')).rejects.toMatchObject({ code: 'ERR_UNTRUSTED', message })
    const you = parseSpiffeId('spiffe://td/you')
    await expect(it.source.fetch('a', { id: you })).rejects.toMatchObject({
      message: 'a token of spiffe://td/me, not of spiffe://td/you',
    })
  })

  it('WE-10 are not to be had from an agent without JWT profile', async () => {
    await using it = await start()
    it.api.answer = fail(new IdentityError('ERR_UNIMPLEMENTED', 'switched off'))
    await expect(it.source.fetch('a')).rejects.toMatchObject({ code: 'ERR_UNIMPLEMENTED' })
    it.say(new IdentityError('ERR_UNIMPLEMENTED', 'switched off'))
    await expect(it.source.verify('x', 'a')).rejects.toMatchObject({ code: 'ERR_UNIMPLEMENTED' })
    expect(it.waits()).toBe(0)
  })

  it('WA-20 an answer without token is none', async () => {
    await using it = await start()
    it.api.answer = async () => ({ svids: [] })
    await expect(it.source.fetch('a')).rejects.toMatchObject({ code: 'ERR_NO_IDENTITY' })
  })
})

describe('the verification of tokens', () => {
  it('WA-23 is done by the agent', async () => {
    const asked: object[] = []
    await using it = await start({
      validateJWTSVID({ audience, svid }) {
        asked.push({ audience, svid })
        if (svid !== 'good') throw new IdentityError('ERR_BAD_REQUEST', 'svid: expired')
        return { spiffeId: 'spiffe://td/you', claims: { sub: 'spiffe://td/you', n: 1 } }
      },
    })
    const said = await it.source.validate('good', 'me')
    expect(said).toEqual({ id: 'spiffe://td/you', claims: { sub: 'spiffe://td/you', n: 1 } })
    await expect(it.source.validate('bad', 'me')).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
      message: 'svid: expired',
    })
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    await expect(it.source.validate('good', 'me', { signal })).rejects.toBe(reason)
    expect(asked).toHaveLength(2)
  })

  it('WA-24 is done here with the keys of the subject’s own trust domain', async () => {
    await using it = await start()
    const foreign = issuer('f1')
    it.say({ bundles: { 'spiffe://td': jwks(keys.jwk), 'spiffe://other': jwks(foreign.jwk) } })
    const exp = it.clock.now() + minute
    expect(await it.source.verify(await token({ exp }), 'a')).toMatchObject({ id: me })
    const friend = await token({ sub: 'spiffe://other/x', exp, by: foreign })
    expect(await it.source.verify(friend, 'a')).toMatchObject({ id: 'spiffe://other/x' })
    const forged = await token({ exp, by: foreign })
    const unknown = await token({ sub: 'spiffe://third/x', exp })
    for (const bad of [forged, unknown, 'x', await token({ exp: it.clock.now() })]) {
      await expect(it.source.verify(bad, 'a')).rejects.toMatchObject({ code: 'ERR_UNTRUSTED' })
    }
    await expect(it.source.verify(await token({ exp }), 'b')).rejects.toMatchObject({
      message: 'aud does not name "b"',
    })
    const late = await token({ exp: it.clock.now() - 5000 })
    expect(await it.source.verify(late, 'a', { leeway: 10_000 })).toMatchObject({ id: me })
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(it.source.verify(friend, 'a', { signal })).rejects.toThrow('enough')
  })

  it('WA-16 takes keys of JWT-SVIDs only, also from SPIRE, which does not say what they are for', async () => {
    await using it = await start()
    const { use: _, ...ofSpire } = keys.jwk
    const x509 = { ...issuer('x').jwk, use: 'x509-svid' }
    const wit = { ...issuer('w').jwk, use: 'wit-svid' }
    const later = { kty: 'AKP', kid: 'later', pub: 'x' }
    it.say({ bundles: { 'spiffe://td': jwks(ofSpire, x509, wit, later) } })
    const read = await it.source.ready(patience())
    expect(read.get(td)?.map(({ keyId }) => keyId)).toEqual(['k1'])
  })

  it('WA-8 keeps no bundle of earlier messages', async () => {
    await using it = await start()
    it.say({ bundles: { 'spiffe://td': jwks(keys.jwk), 'spiffe://other': jwks(keys.jwk) } })
    await it.source.ready(patience())
    const state = await it.change({ bundles: { 'spiffe://td': jwks() } })
    expect(state?.get(parseTrustDomain('other'))).toBeUndefined()
    expect(state?.get(td)).toEqual([])
  })

  it.each([
    ['no JSON', Buffer.from('{'), 'JWT bundle of td: is no JSON'],
    [
      'a member twice',
      Buffer.from('{"keys":[],"keys":[]}'),
      'JWT bundle of td: has the member "keys" twice',
    ],
    ['no keys', Buffer.from('{}'), 'JWT bundle of td: keys is missing or no list'],
    [
      'a key without kid',
      jwks({ ...keys.jwk, kid: '' }),
      'JWT bundle of td: keys[0].kid is missing',
    ],
  ])('WA-9 refuses a bundle with %s, and keeps the one before', async (_, json, message) => {
    await using it = await start()
    it.say(bundles())
    const before = await it.source.ready(patience())
    const trouble = await it.trouble({ bundles: { 'spiffe://td': json } })
    expect(String(trouble)).toContain(message)
    expect(it.source.current()).toBe(before)
  })
})

import { createPublicKey, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { base64url, FlattenedSign, UnsecuredJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import {
  formatBundleDocument,
  parseBundleDocument,
  type TokenKey,
} from '../../spiffe/bundle-document.ts'
import { parseTrustDomain, type TrustDomain } from '../../spiffe/id.ts'
import { verifyJwtSvid } from '../../spiffe/jwt-svid.ts'
import {
  refusalFrom,
  type Said,
  signText,
  signToken,
  type TokenSigner,
  tokenSigner,
} from '../support/svid-tokens.ts'

const ours = parseTrustDomain('example.org')
const theirs = parseTrustDomain('example.com')
const id = 'spiffe://example.org/workload'
const now = Date.UTC(2031, 4, 17, 12)
const seconds = now / 1000
const audience = 'reports'

const own = tokenSigner('ES256', 'own')
const rsa = tokenSigner('RS256', 'rsa')
const foreign = tokenSigner('ES256', 'foreign')
const stranger = tokenSigner('ES256', 'own')

const bundles: Readonly<Record<string, readonly TokenKey[]>> = {
  [ours]: [own.key, rsa.key],
  [theirs]: [foreign.key],
}
const keys = (trustDomain: TrustDomain) => bundles[trustDomain]
const base = { sub: id, aud: [audience], iat: seconds - 60, exp: seconds + 300 }

type Changes = Partial<Parameters<typeof verifyJwtSvid>[1]>
const verify = (token: string, changes: Changes = {}) =>
  verifyJwtSvid(token, { keys, audience, now, ...changes })
const make = (claims: Said = {}, header: Said = {}, signer: TokenSigner = own) =>
  signToken(signer, { ...base, ...claims }, header)

async function expectRefused(token: string | Promise<string>, message: string, changes?: Changes) {
  expect(await refusalFrom(verify(await token, changes))).toEqual({
    code: 'ERR_UNTRUSTED',
    message,
  })
}
const accepted = async (token: string | Promise<string>, changes?: Changes) =>
  (await verify(await token, changes)).id

/** As written: the header and the payload may be what JSON.stringify does not write. */
const written = (payload: string, header = '{"alg":"ES256","kid":"own"}') =>
  signText(own, header, payload)
const text = JSON.stringify(base)

describe('the form of a JWT-SVID', () => {
  it('JW-1 the compact serialization is accepted, with what it says', async () => {
    const token = await make({ jti: 'x', role: { of: ['a'] } }, { typ: 'JWT' })
    expect(await verify(token)).toEqual({
      id,
      audience: [audience],
      expiresAt: now + 300_000,
      issuedAt: now - 60_000,
      claims: { ...base, jti: 'x', role: { of: ['a'] } },
      token,
    })
  })

  it('JW-1 JSON serializations and encrypted tokens are refused', async () => {
    const flat = await new FlattenedSign(Buffer.from(text))
      .setProtectedHeader({ alg: 'ES256', kid: 'own' })
      .sign(own.privateKey)
    const { payload, ...signature } = flat
    const message = 'a JSON serialization, not the compact'
    await expectRefused(JSON.stringify(flat), message)
    await expectRefused(` ${JSON.stringify({ payload, signatures: [signature] })}`, message)
    await expectRefused('e30.e30.e30.e30.e30', 'an encrypted token (JWE)')
  })

  it.each(['', 'a', 'a.b', 'a.b.c.d', 'a.b.c.d.e.f'])('JW-1 %j is no token', async (token) => {
    await expectRefused(token, 'no compact JWS: three parts with a dot between them')
  })

  it('JW-1 each part has one form only', async () => {
    const [header = '', payload = '', signature = ''] = (await make()).split('.')
    // 64 bytes leave four bits of the last character unused
    const last = String.fromCharCode(signature.charCodeAt(85) + 1)
    await expectRefused(`${header}=.${payload}.${signature}`, 'the header is no base64url')
    await expectRefused(`${header}.${payload} .${signature}`, 'the payload is no base64url')
    await expectRefused(`${header}.${payload}.${signature}==`, 'the signature is no base64url')
    await expectRefused(`${header}.${payload}.`, 'signature verification failed')
    const twin = `${header}.${payload}.${signature.slice(0, 85)}${last}`
    await expectRefused(twin, 'the signature is no base64url')
  })

  it('JW-1 a token has a bounded length', async () => {
    await expectRefused('.'.repeat(16_385), 'a token of 16385 bytes (at most 16384)')
    const size = (await make({ x: '' })).length
    // three bytes of payload make four characters of the token
    const full = make({ x: 'y'.repeat(Math.floor(((16_384 - size) * 3) / 4) - 2) })
    expect(await accepted(full)).toBe(id)
  })

  it('JW-1 header and payload are JSON objects in UTF-8', async () => {
    await expectRefused(written('[]'), 'the payload is no JSON object')
    await expectRefused(written('null'), 'the payload is no JSON object')
    await expectRefused(written('{'), 'the payload is no JSON')
    await expectRefused(written(`\ufeff${text}`), 'the payload is no JSON')
    await expectRefused(written(text, '"x"'), 'the header is no JSON object')
    const latin = Buffer.from(text.replace('"aud"', '"ä":1,"aud"'), 'latin1')
    await expectRefused(signText(own, '{"alg":"ES256"}', latin), 'the payload is no UTF-8')
  })

  it('a member that stands twice is refused in header and payload', async () => {
    const twice = written(text.replace('{', '{"aud":"other",'))
    await expectRefused(twice, 'the payload has the member "aud" twice')
    const deep = written(text.replace('{', '{"x":[{"a":1,"\\u0061":2}],'))
    await expectRefused(deep, 'the payload has the member "a" twice')
    const header = '{"alg":"ES256","alg":"ES256","kid":"own"}'
    await expectRefused(written(text, header), 'the header has the member "alg" twice')
  })

  it.each(['jwk', 'jku', 'x5u', 'x5c', 'x5t', 'crit', 'zip', 'b64', 'cty', 'ALG', '__proto__'])(
    'JW-2 a header with %s is refused',
    async (name) => {
      const header = `{"alg":"ES256","kid":"own",${JSON.stringify(name)}:["exp"]}`
      await expectRefused(written(text, header), `the header has the member "${name}"`)
    },
  )
})

describe('the algorithm of a JWT-SVID', () => {
  it.each(['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512'])(
    'JW-3 %s is accepted',
    async (algorithm) => {
      const signer = algorithm.startsWith('ES')
        ? tokenSigner(algorithm, 'new')
        : { ...rsa, algorithm }
      const token = await make({}, {}, signer)
      expect(await accepted(token, { keys: () => [signer.key] })).toBe(id)
    },
  )

  it.each([
    'none',
    'HS256',
    'EdDSA',
    'Ed25519',
    'ES256K',
    'ML-DSA-44',
    'es256',
    '',
    'toString',
    7,
    null,
  ])('JW-3 %j is refused before anything else is looked at', async (alg) => {
    const header = base64url.encode(JSON.stringify({ alg, crit: ['x'] }))
    const message = `the algorithm ${JSON.stringify(alg)} is not accepted`
    await expectRefused(`${header}.?.?`, message)
  })

  it('JW-3 an absent one is refused, and an unsecured token', async () => {
    await expectRefused(written(text, '{"kid":"own"}'), 'the algorithm nothing is not accepted')
    const unsecured = new UnsecuredJWT({ sub: id }).setAudience(audience).encode()
    await expectRefused(unsecured, 'the algorithm "none" is not accepted')
  })

  it('JW-18 the algorithm is one of its key', async () => {
    const p384 = tokenSigner('ES384', 'own')
    const wrong = written(text, '{"alg":"ES384","kid":"own"}')
    await expectRefused(wrong, 'the algorithm "ES384" is not one of its key')
    await expectRefused(make(), 'the algorithm "ES256" is not one of its key', {
      keys: () => [p384.key],
    })
    const asRsa = written(text, '{"alg":"PS256","kid":"own"}')
    await expectRefused(asRsa, 'the algorithm "PS256" is not one of its key')
    await expectRefused(make({}, { kid: 'rsa' }), 'the algorithm "ES256" is not one of its key')
  })

  it('JW-18 RSA keys have 2048 to 8192 bits', async () => {
    const small = tokenSigner('RS256', 'own', 1024)
    const token = signText(own, '{"alg":"RS256","kid":"own"}', text)
    const refused = (key: TokenKey, bits: number) =>
      expectRefused(token, `an RSA key of ${bits} bits (2048 to 8192) is not accepted`, {
        keys: () => [key],
      })
    await refused(small.key, 1024)
    const n = Buffer.concat([Buffer.of(0x80), randomBytes(1024)]).toString('base64url')
    const large = createPublicKey({ key: { kty: 'RSA', n, e: 'AQAB' }, format: 'jwk' })
    const publicKey = large.export({ format: 'der', type: 'spki' })
    await refused({ keyId: 'own', publicKey }, 8200)
  })

  it('JW-18 a key that cannot be read signs nothing', async () => {
    const key = { keyId: 'own', publicKey: Buffer.from('x') }
    const refusal = await refusalFrom(verify(await make(), { keys: () => [key] }))
    expect(refusal?.message).toMatch(/^unreadable public key/)
  })
})

describe('the key of a JWT-SVID', () => {
  it('JW-4 with a kid it is exactly that key', async () => {
    expect(await accepted(make())).toBe(id)
    expect(await accepted(make({}, {}, rsa))).toBe(id)
    const wrong = signText(own, '{"alg":"ES256","kid":"other"}', text)
    const both = () => [
      own.key,
      { ...own.key, keyId: 'other' },
      { ...stranger.key, keyId: 'third' },
    ]
    expect(await accepted(wrong, { keys: both })).toBe(id)
    await expectRefused(wrong, 'no key "other" in the bundle')
    const third = signText(own, '{"alg":"ES256","kid":"third"}', text)
    await expectRefused(third, 'signature verification failed', { keys: both })
  })

  it('JW-4 without a kid every fitting key is tried', async () => {
    const kid = undefined
    expect(await accepted(make({}, { kid }))).toBe(id)
    expect(await accepted(make({}, { kid }, rsa))).toBe(id)
    await expectRefused(
      make({}, { kid }, stranger),
      'none of 2 keys of the bundle made the signature',
    )
  })

  it.each([7, null, ['own'], {}])('JW-4 a kid that is %j is refused', async (kid) => {
    const token = written(text, JSON.stringify({ alg: 'ES256', kid }))
    await expectRefused(token, 'kid is no text')
  })

  it('JW-5 typ is absent, JWT or JOSE', async () => {
    for (const typ of [undefined, 'JWT', 'JOSE']) expect(await accepted(make({}, { typ }))).toBe(id)
    for (const typ of ['jwt', 'wit+jwt', 'at+jwt', '', 7, null]) {
      const token = written(text, JSON.stringify({ alg: 'ES256', kid: 'own', typ }))
      await expectRefused(token, `typ is ${JSON.stringify(typ)}, not JWT or JOSE`)
    }
  })

  const x509 = { x509: [], sequence: undefined, refreshHint: undefined }
  it('JW-15 only keys of use jwt-svid count', async () => {
    const token = await make()
    for (const use of ['wit-svid', 'x509-svid', 'sig', undefined]) {
      const document = JSON.parse(formatBundleDocument({ ...x509, jwt: [own.key], wit: [] }))
      document.keys[0].use = use
      const { jwt } = parseBundleDocument(JSON.stringify(document), 'bundle')
      const message = 'the bundle of example.org has no keys of JWT-SVIDs'
      await expectRefused(token, message, { keys: () => jwt })
    }
    const { jwt } = parseBundleDocument(
      formatBundleDocument({ ...x509, jwt: [own.key], wit: [stranger.key] }),
      'bundle',
    )
    expect(await accepted(token, { keys: () => jwt })).toBe(id)
    const byWit = make({}, {}, stranger)
    await expectRefused(byWit, 'signature verification failed', { keys: () => jwt })
  })

  it('JW-16 without keys of that use every token is refused', async () => {
    const message = 'the bundle of example.org has no keys of JWT-SVIDs'
    await expectRefused(make(), message, { keys: () => [] })
    await expectRefused(make({}, { kid: undefined }), message, { keys: () => [] })
  })

  it('WA-24 the subject chooses the bundle, and no other is asked', async () => {
    const sub = 'spiffe://example.com/workload'
    const asked: string[] = []
    const watch = (trustDomain: TrustDomain) => {
      asked.push(trustDomain)
      return keys(trustDomain)
    }
    expect(await accepted(make({ sub }, {}, foreign), { keys: watch })).toBe(sub)
    expect(asked).toEqual(['example.com'])
    await expectRefused(make({ sub }), 'no key "own" in the bundle')
    await expectRefused(make({}, {}, foreign), 'no key "foreign" in the bundle')
    const nobody = make({ sub: 'spiffe://example.net/a' })
    await expectRefused(nobody, 'trust domain example.net is not trusted here')
  })
})

describe('the claims of a JWT-SVID', () => {
  it.each([
    [undefined, 'sub is missing or no text'],
    [7, 'sub is missing or no text'],
    [[id], 'sub is missing or no text'],
    ['workload', 'sub "workload" is no SPIFFE ID: it does not start with spiffe://'],
    [`${id}/`, `sub "${id}/" is no SPIFFE ID: the path has an empty segment or a trailing slash`],
    ['spiffe://example.org', 'sub is a SPIFFE ID without a path'],
  ])('JW-6 sub %j is refused', async (sub, message) => {
    await expectRefused(make({ sub }), message)
  })

  it('JW-6 ID-16 sub may have 2048 bytes', async () => {
    const sub = `spiffe://example.org/${'a'.repeat(2027)}`
    expect(await accepted(make({ sub }))).toBe(sub)
    expect((await refusalFrom(verify(await make({ sub: `${sub}a` }))))?.message).toContain('2048')
  })

  it('JW-7 aud is a text or a list', async () => {
    expect((await verify(await make({ aud: audience }))).audience).toEqual([audience])
    expect((await verify(await make({ aud: ['a', audience] }))).audience).toEqual(['a', audience])
    await expectRefused(make({ aud: undefined }), 'aud is missing')
    for (const aud of [[], '', [''], [audience, ''], 7, null, {}, [7], [audience, 7], [[audience]]])
      await expectRefused(
        make({ aud }),
        'aud is neither a text nor a list of texts that are not empty',
      )
  })

  it('JW-8 the own audience is a member, exactly', async () => {
    for (const aud of [
      'Reports',
      'reports ',
      'report',
      ['reports/'],
      'spiffe://example.org/reports',
    ])
      await expectRefused(make({ aud }), 'aud does not name "reports"')
    await expectRefused(make({ aud: 'x' }), 'aud does not name ""', { audience: '' })
  })

  it('JW-10 R7 exp is required', async () => {
    await expectRefused(make({ exp: undefined }), 'exp is missing')
    for (const exp of ['1', null, true, [seconds + 300]])
      await expectRefused(make({ exp }), `exp is ${JSON.stringify(exp)}, no time in seconds`)
    await expectRefused(make({ exp: -1 }), 'exp is -1, no time in seconds')
    await expectRefused(make({ exp: now }), `exp is ${now}, no time in seconds`)
    const endless = written(text.replace(`"exp":${seconds + 300}`, '"exp":1e400'))
    await expectRefused(endless, 'exp is null, no time in seconds')
  })

  it('JW-10 R14 a time may be written 1.9e9', async () => {
    const token = written(text.replace(`"exp":${seconds + 300}`, '"exp":1.99e9'))
    expect((await verify(token)).expiresAt).toBe(1_990_000_000_000)
    const fraction = written(text.replace(`"exp":${seconds + 300}`, `"exp":${seconds}.5`))
    expect((await verify(fraction)).expiresAt).toBe(now + 500)
  })

  it('JW-11 an expired one is refused, with a leeway of at most a minute', async () => {
    const message = 'expired at 2031-05-17T12:00:00.000Z'
    const token = await make({ exp: seconds })
    await expectRefused(token, message)
    expect(await accepted(token, { now: now - 1 })).toBe(id)
    expect(await accepted(token, { leeway: 1 })).toBe(id)
    expect(await accepted(token, { now: now + 59_999, leeway: 60_000 })).toBe(id)
    await expectRefused(token, message, { now: now + 60_000, leeway: 60_000 })
    for (const leeway of [60_001, -1, Number.NaN])
      await expect(verify(token, { leeway })).rejects.toThrow(TypeError)
  })

  it('JW-12 nbf is kept when it is present, iat is a time', async () => {
    expect(await accepted(make({ nbf: seconds }))).toBe(id)
    const early = await make({ nbf: seconds + 10 })
    await expectRefused(early, 'not valid before 2031-05-17T12:00:10.000Z')
    expect(await accepted(early, { leeway: 10_000 })).toBe(id)
    await expectRefused(make({ nbf: 'x' }), 'nbf is "x", no time in seconds')
    await expectRefused(make({ iat: null }), 'iat is null, no time in seconds')
    expect((await verify(await make({ iat: undefined }))).issuedAt).toBeUndefined()
    expect(await accepted(make({ iat: seconds + 10, jti: 'x', iss: 'y', more: [] }))).toBe(id)
  })

  it('is nested at most so deep', async () => {
    const nested = (levels: number) =>
      written(text.replace('{', `{"x":${'['.repeat(levels)}${']'.repeat(levels)},`))
    expect(await accepted(nested(31))).toBe(id)
    await expectRefused(nested(32), 'the payload is nested too deeply')
    await expectRefused(nested(5_000), 'the payload is nested too deeply')
  })

  it('a long value is cut in the reason', async () => {
    const typ = 'x'.repeat(500)
    const token = written(text, JSON.stringify({ alg: 'ES256', typ }))
    await expectRefused(token, `typ is "${'x'.repeat(79)}…, not JWT or JOSE`)
  })
})

describe('whatever it is', () => {
  it('WA-22 a tampered token is never accepted', async () => {
    const tokens = await Promise.all([make(), make({ aud: audience }, { kid: undefined }, rsa)])
    const anything = fc.oneof(
      fc.constantFrom(...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.'),
      fc.string({ maxLength: 3 }),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...tokens),
        fc.nat(),
        fc.nat(2),
        anything,
        async (token, where, cut, put) => {
          const at = where % token.length
          const changed = `${token.slice(0, at)}${put}${token.slice(at + cut)}`
          fc.pre(changed !== token)
          expect((await refusalFrom(verify(changed)))?.code).toBe('ERR_UNTRUSTED')
        },
      ),
      { numRuns: 300 },
    )
  })

  it('WA-22 it is verified or refused, never more', async () => {
    const value = fc.oneof(fc.jsonValue(), fc.constantFrom(id, audience, seconds, seconds + 300))
    const claims = fc.record(
      { sub: value, aud: value, exp: value, nbf: value, iat: value },
      { requiredKeys: [] },
    )
    const header = fc.record(
      { kid: value, typ: value, alg: fc.constant('ES256') },
      { requiredKeys: ['alg'] },
    )
    await fc.assert(
      fc.asyncProperty(header, claims, async (head, payload) => {
        const token = signText(own, JSON.stringify(head), JSON.stringify({ ...base, ...payload }))
        const refusal = await refusalFrom(verify(token))
        if (refusal === undefined) expect((await verify(token)).audience).toContain(audience)
        else expect(refusal.code).toBe('ERR_UNTRUSTED')
      }),
    )
    await fc.assert(
      fc.asyncProperty(fc.string(), async (token) => {
        expect((await refusalFrom(verify(token)))?.code).toBe('ERR_UNTRUSTED')
      }),
    )
  })
})

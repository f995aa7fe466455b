import type { JsonWebKey } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatBundleDocument, parseBundleDocument } from '../../spiffe/bundle-document.ts'
import { parseTrustDomain, type TrustDomain } from '../../spiffe/id.ts'
import { readJws } from '../../spiffe/jws.ts'
import { verifyWitSvid, witRules } from '../../spiffe/wit-svid.ts'
import {
  refusalFrom,
  type Said,
  signText,
  signToken,
  type TokenSigner,
  tokenSigner,
} from '../support/svid-tokens.ts'

const ours = parseTrustDomain('example.org')
const id = 'spiffe://example.org/workload'
const now = Date.UTC(2031, 4, 17, 12)
const seconds = now / 1000

const own = tokenSigner('ES256', 'own')
const other = tokenSigner('ES384', 'other')
const stranger = tokenSigner('ES256', 'own')
const holder = tokenSigner('ES256', '')
const jwk: JsonWebKey = { ...holder.publicKey.export({ format: 'jwk' }), alg: 'ES256' }

const keys = (trustDomain: TrustDomain) => (trustDomain === ours ? [own.key, other.key] : undefined)
const base = { sub: id, exp: seconds + 300, cnf: { jwk } }

/** WIT-SVID, Appendix A; the standard does not give the key that signed it. */
const example = [
  'eyJhbGciOiJFUzI1NiIsImtpZCI6ImxRU2kzaFpGbmRhMkQtWEprajF6bDdmb0pvdWl3STRuckF5aHk0alppSmciLCJ0eXAiOiJ3aXQr',
  'and0In0.eyJjbmYiOnsiandrIjp7ImFsZyI6IkVTMjU2IiwiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJyelA3bUxDS0FIV21z',
  'TTZYMEV3VklTQ19oSTN1amN1OTVmZlVreWVER0dvIiwieSI6InVPcmZEbGp0WDltM2pZLWhzeWhMSllheHRHa3pEdjVlNWttQ2U1OFo5',
  'N2cifX0sImV4cCI6MTc2NTQ1NjUwMywiaWF0IjoxNzY1NDUyOTAzLCJqdGkiOiIxeWoxOVY0TWNPQXpNY0ZpN3F2c2dfQWdDeGxyWTVF',
  'X3g1MDl3bEtLUXRjIiwic3ViIjoic3BpZmZlOi8vZXhhbXBsZS5jb20vbXktd29ya2xvYWQifQ.sfhEvZNdY_kWrICF08lX0u__rn39Y',
  'nTavnW-VPBS20zgowDh6-X43v5eOUKZbjZf06yLBQM-Mry5w1g1QFsCkg',
].join('')

type Changes = Partial<Parameters<typeof verifyWitSvid>[1]>
const verify = (token: string, changes: Changes = {}) =>
  verifyWitSvid(token, { keys, now, ...changes })
const make = (claims: Said = {}, header: Said = {}, signer: TokenSigner = own) =>
  signToken(signer, { ...base, ...claims }, { typ: 'wit+jwt', ...header })
const withKey = (changes: Said) => make({ cnf: { jwk: { ...jwk, ...changes } } })
const written = (header: Said) => signText(own, JSON.stringify(header), JSON.stringify(base))
const good = { alg: 'ES256', kid: 'own', typ: 'wit+jwt' }

async function expectRefused(token: string | Promise<string>, message: string, changes?: Changes) {
  expect(await refusalFrom(verify(await token, changes))).toEqual({
    code: 'ERR_UNTRUSTED',
    message,
  })
}
const accepted = async (token: string | Promise<string>, changes?: Changes) =>
  (await verify(await token, changes)).id

describe('a WIT-SVID', () => {
  it('WT-17 gives the key that its holder has to prove, and proves nothing alone', async () => {
    const token = await make({ iat: seconds - 60, nbf: seconds - 60 })
    const { key, ...svid } = await verify(token)
    expect(svid).toEqual({
      id,
      algorithm: 'ES256',
      expiresAt: now + 300_000,
      notBefore: now - 60_000,
      issuedAt: now - 60_000,
      claims: { ...base, iat: seconds - 60, nbf: seconds - 60 },
      token,
    })
    expect(key.type).toBe('public')
    expect(key.equals(holder.publicKey)).toBe(true)
  })

  it('WT-1 kid is required, compared by case, and names exactly one key', async () => {
    for (const kid of [undefined, '', 7, null, ['own']])
      await expectRefused(written({ ...good, kid }), 'kid is missing or no text')
    await expectRefused(written({ ...good, kid: 'Own' }), 'no key "Own" in the bundle')
    expect(await accepted(make({}, {}, other))).toBe(id)
    await expectRefused(make({}, {}, stranger), 'signature verification failed')
    const message = 'the algorithm "ES256" is not one of its key'
    await expectRefused(written({ ...good, kid: 'other' }), message)
  })

  it('WT-2 typ is wit+jwt, exactly', async () => {
    for (const typ of [undefined, 'JWT', 'WIT+JWT', 'application/wit+jwt', '', null]) {
      const shown = JSON.stringify(typ) ?? 'nothing'
      await expectRefused(written({ ...good, typ }), `typ is ${shown}, not wit+jwt`)
    }
  })

  it('WT-3 the algorithm is one of the nine', async () => {
    for (const alg of ['none', 'HS256', 'EdDSA', null])
      await expectRefused(
        written({ ...good, alg }),
        `the algorithm ${JSON.stringify(alg)} is not accepted`,
      )
    await expectRefused(
      written({ kid: 'own', typ: 'wit+jwt' }),
      'the algorithm nothing is not accepted',
    )
  })

  it('WT-4 other members of the header are ignored, unless they are critical', async () => {
    const ignored = { ...good, jku: 'https://example.com', jwk, b64: false, x: 1 }
    expect(await accepted(written(ignored))).toBe(id)
    for (const crit of [['x'], [], ['exp'], null])
      await expectRefused(written({ ...good, crit }), 'the header has the member "crit"')
  })

  it('WT-5 sub is a SPIFFE ID with a path', async () => {
    await expectRefused(make({ sub: undefined }), 'sub is missing or no text')
    const message = 'sub is a SPIFFE ID without a path'
    await expectRefused(make({ sub: 'spiffe://example.org' }), message)
    const refusal = await refusalFrom(verify(await make({ sub: 'SPIFFE://example.org/a' })))
    expect(refusal?.message).toMatch(/^sub "SPIFFE:.* is no SPIFFE ID/)
  })

  it('WT-6 cnf is present, with a key in it', async () => {
    for (const cnf of [undefined, null, 'x', [jwk]])
      await expectRefused(make({ cnf }), 'cnf is missing or no JSON object')
    for (const cnf of [{}, { jwk: null }, { jwk: [jwk] }, { kid: 'x' }, { jku: 'x' }])
      await expectRefused(make({ cnf }), 'cnf.jwk is missing or no JSON object')
    await expectRefused(
      withKey({ x: undefined }),
      expect.stringMatching(/^cnf.jwk is no public key/),
    )
    await expectRefused(withKey({ x: 'AAAA' }), expect.stringMatching(/^cnf.jwk is no public key/))
    await expectRefused(withKey({ x: 7 }), expect.stringMatching(/^cnf.jwk is no public key/))
  })

  it('WT-7 cnf.jwk.alg is one of the nine and of its key', async () => {
    await expectRefused(withKey({ alg: undefined }), 'the algorithm nothing is not accepted')
    await expectRefused(withKey({ alg: 'EdDSA' }), 'the algorithm "EdDSA" is not accepted')
    await expectRefused(withKey({ alg: 'ES384' }), 'the algorithm "ES384" is not one of its key')
    await expectRefused(withKey({ alg: 'RS256' }), 'the algorithm "RS256" is not one of its key')
    const weak = tokenSigner('RS256', '', 1024).publicKey.export({ format: 'jwk' })
    const message = 'cnf.jwk is an RSA key of 1024 bits (2048 to 8192)'
    await expectRefused(make({ cnf: { jwk: { ...weak, alg: 'PS256' } } }), message)
    const rsa = tokenSigner('PS256', '')
    const fine = { ...rsa.publicKey.export({ format: 'jwk' }), alg: 'PS512', use: 'sig' }
    const { key, algorithm } = await verify(await make({ cnf: { jwk: fine } }))
    expect([key.equals(rsa.publicKey), algorithm]).toEqual([true, 'PS512'])
  })

  it.each(['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'])(
    'WT-7 a private member %s in cnf.jwk is refused, its value is not repeated',
    async (name) => {
      const message = `cnf.jwk holds a private key (${name})`
      await expectRefused(withKey({ [name]: 'secret' }), message)
    },
  )

  it('WT-8 jti is neither demanded nor remembered', async () => {
    const token = await make({ jti: 'once' })
    expect(await accepted(token)).toBe(id)
    expect(await accepted(token)).toBe(id)
    expect(await accepted(make({ jti: 7 }))).toBe(id)
  })

  it('WT-9 exp is required and to come, with a leeway of at most two minutes', async () => {
    await expectRefused(make({ exp: undefined }), 'exp is missing')
    await expectRefused(make({ exp: 'x' }), 'exp is "x", no time in seconds')
    const late = await make({ exp: seconds })
    await expectRefused(late, 'expired at 2031-05-17T12:00:00.000Z')
    expect(await accepted(late, { leeway: 120_000, now: now + 119_999 })).toBe(id)
    await expect(verify(late, { leeway: 120_001 })).rejects.toThrow(TypeError)
  })

  it('WT-10 WT-11 nbf is kept, iat never stands for it', async () => {
    const message = 'not valid before 2031-05-17T12:00:01.000Z'
    await expectRefused(make({ nbf: seconds + 1 }), message)
    expect(await accepted(make({ nbf: seconds }))).toBe(id)
    const svid = await verify(await make({ iat: seconds + 3600 }))
    expect(svid).toMatchObject({ notBefore: undefined, issuedAt: now + 3_600_000 })
    await expectRefused(make({ iat: 'x' }), 'iat is "x", no time in seconds')
  })

  it('WT-13 aud is never present', async () => {
    for (const aud of ['x', [], '', null])
      await expectRefused(make({ aud }), 'aud is present, which a WIT-SVID never has')
  })

  it('WT-14 claims that nobody knows are ignored', async () => {
    expect((await verify(await make({ iss: 'x', more: [1] }))).claims).toMatchObject({ more: [1] })
  })

  it('WT-20 only keys of use wit-svid count, of the subject’s trust domain', async () => {
    const token = await make()
    const none = { x509: [], sequence: undefined, refreshHint: undefined }
    const document = formatBundleDocument({ ...none, jwt: [own.key], wit: [] })
    const { wit } = parseBundleDocument(document, 'bundle')
    const message = 'the bundle of example.org has no keys of WIT-SVIDs'
    await expectRefused(token, message, { keys: () => wit })
    await expectRefused(token, 'trust domain example.org is not trusted here', {
      keys: () => undefined,
    })
  })

  it('WT-23 the example of the standard keeps every rule while it lives', async () => {
    const bundle = { keys: () => [own.key] }
    const at = 1_765_456_502_000
    await expectRefused(
      example,
      'no key "lQSi3hZFnda2D-XJkj1zl7foJouiwI4nrAyhy4jZiJg" in the bundle',
      {
        ...bundle,
        now: at,
      },
    )
    const message = 'expired at 2025-12-11T12:35:03.000Z'
    await expectRefused(example, message, { ...bundle, now: at + 1000 })
    const jws = readJws(example)
    for (const rule of Object.values(witRules)) rule(jws, { now: at, leeway: 0 })
    expect(jws.payload.sub).toBe('spiffe://example.com/my-workload')
  })

  it('whatever is changed in a token, it is not accepted', async () => {
    const token = await make()
    const put = fc.oneof(fc.constantFrom(...'AQgwBdz09-_.'), fc.string({ maxLength: 3 }))
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 1), fc.nat(2), put, async (at, cut, text) => {
        const changed = `${token.slice(0, at)}${text}${token.slice(at + cut)}`
        fc.pre(changed !== token)
        expect((await refusalFrom(verify(changed)))?.code).toBe('ERR_UNTRUSTED')
      }),
      { numRuns: 200 },
    )
  })

  it('whatever its holder’s key is, it is read or refused, never more', async () => {
    const value = fc.oneof(fc.jsonValue(), fc.constantFrom('EC', 'RSA', 'P-256', jwk.x, 'AQAB'))
    const names = ['kty', 'crv', 'x', 'y', 'n', 'e', 'alg'] as const
    const changes = fc.dictionary(fc.constantFrom(...names), value)
    await fc.assert(
      fc.asyncProperty(changes, async (change) => {
        const refusal = await refusalFrom(verify(await withKey(change)))
        if (refusal !== undefined) expect(refusal.code).toBe('ERR_UNTRUSTED')
      }),
    )
  })
})

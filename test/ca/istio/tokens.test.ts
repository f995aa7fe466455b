// Tokens that convince and tokens that do not.
import { createHmac, createPublicKey } from 'node:crypto'
import { createLocalJWKSet } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { holderOf, type TokenRules } from '../../../ca/istio/tokens.ts'
import { hasCode } from '../../../spiffe/errors.ts'
import { parseTrustDomain } from '../../../spiffe/id.ts'
import { type Claims, createTestIssuer, type TestIssuer } from '../../support/token-issuer.ts'

const now = 1_900_000_000_000
const seconds = now / 1000
let issuer: TestIssuer
let stranger: TestIssuer
let rules: TokenRules
beforeAll(async () => {
  issuer = await createTestIssuer('https://a.example', { now })
  const second = await createTestIssuer('https://b.example', { now, alg: 'ES256' })
  // the name of a known one, the key of nobody
  stranger = await createTestIssuer('https://a.example', { now })
  rules = {
    trustDomain: parseTrustDomain('example.org'),
    clock: { now: () => now },
    issuers: [issuer, second].map(({ issuer: name, jwks }) => ({
      issuer: name,
      audiences: ['istio-ca', 'castellan'],
      keys: createLocalJWKSet(JSON.parse(jwks)),
    })),
  }
})

async function answerTo(authorization: string): Promise<string> {
  try {
    return (await holderOf(authorization, rules)).id
  } catch (error) {
    if (hasCode(error, 'ERR_UNTRUSTED')) return 'refused'
    throw error
  }
}
const answerToToken = async (claims: Claims, header = {}) =>
  answerTo(`Bearer ${await issuer.token(claims, header)}`)
const cart = 'spiffe://example.org/ns/shop/sa/cart'

describe('a token convinces', () => {
  const good: readonly (readonly [string, Claims])[] = [
    ['with an audience among others', { aud: ['x', 'castellan'] }],
    ['with one audience as text', { aud: 'istio-ca' }],
    ['five seconds after its end', { exp: seconds - 4 }],
    [
      'whose Kubernetes claims say the same',
      { 'kubernetes.io': { namespace: 'shop', serviceaccount: { name: 'cart', uid: 'u' } } },
    ],
  ]
  test.each(good)('%s', async (_, claims) => {
    expect(await answerToToken(claims)).toBe(cart)
  })

  test('behind Istio as behind Bearer', async () => {
    expect(await answerTo(`Istio ${await issuer.token()}`)).toBe(cart)
  })
})

describe('a token does not convince', () => {
  const bad: readonly (readonly [string, Claims])[] = [
    ['of an unknown issuer', { iss: 'https://c.example' }],
    ['of another issuer, signed by the key of this one', { iss: 'https://b.example' }],
    ['of an issuer written differently', { iss: 'https://a.example/' }],
    ['without issuer', { iss: undefined }],
    ['for nobody', { aud: [] }],
    ['for somebody else', { aud: ['vault'] }],
    ['without audience', { aud: undefined }],
    ['without end', { exp: undefined }],
    ['after its end', { exp: seconds - 6 }],
    ['before its start', { nbf: seconds + 6 }],
    ['of a person', { sub: 'jane' }],
    ['of nobody', { sub: undefined }],
    [
      'whose Kubernetes claims name another account',
      { 'kubernetes.io': { namespace: 'shop', serviceaccount: { name: 'admin' } } },
    ],
    ['whose Kubernetes claims are odd', { 'kubernetes.io': 'shop' }],
  ]
  test.each(bad)('%s', async (_, claims) => {
    expect(await answerToToken(claims)).toBe('refused')
  })

  test('with a made-up key ID', async () => {
    expect(await answerToToken({}, { kid: 'other' })).toBe('refused')
  })
  test('with a critical header nobody knows', async () => {
    const [, payload, signature] = (await issuer.token()).split('.')
    const header = Buffer.from('{"alg":"RS256","kid":"key-1","crit":["x"],"x":1}')
    expect(await answerTo(`Bearer ${header.toString('base64url')}.${payload}.${signature}`)).toBe(
      'refused',
    )
  })
  test('signed by somebody else', async () => {
    expect(await answerTo(`Bearer ${await stranger.token()}`)).toBe('refused')
  })
  test('without signature (alg none)', async () => {
    const [, payload] = (await issuer.token()).split('.')
    const header = Buffer.from('{"alg":"none"}').toString('base64url')
    expect(await answerTo(`Bearer ${header}.${payload}.`)).toBe('refused')
  })
  test('with a MAC made of the public key', async () => {
    const [, payload] = (await issuer.token()).split('.')
    const header = Buffer.from('{"alg":"HS256","kid":"key-1"}').toString('base64url')
    const jwk = JSON.parse(issuer.jwks).keys[0]
    const pem = createPublicKey({ key: jwk, format: 'jwk' }).export({ format: 'pem', type: 'spki' })
    const mac = createHmac('sha256', pem).update(`${header}.${payload}`).digest('base64url')
    expect(await answerTo(`Bearer ${header}.${payload}.${mac}`)).toBe('refused')
  })

  const noTokens = ['', 'Bearer', 'Bearer ', 'Basic YTpi', 'bearer x', 'Bearer a b', 'Bearer a.b.c']
  test.each([...noTokens, `Bearer ${'a'.repeat(8193)}`])('%j', async (authorization) => {
    expect(await answerTo(authorization)).toBe('refused')
  })
})

// What RequestAuthentication demands of a request: where tokens are found, which answer each gets, what is
// remembered, and how the request changes.
import { beforeAll, describe, expect, it } from 'vitest'
import { isRejection, readHttp } from '../../../policies/attributes/request.ts'
import { defaultMesh, type Profile } from '../../../policies/language/mesh.ts'
import { readPolicies } from '../../../policies/language/read.ts'
import {
  type Authentication,
  createAuthentication,
  type JwksSource,
} from '../../../policies/tokens/authenticate.ts'
import { type IssuerKey, readJwks } from '../../../policies/tokens/jwks.ts'
import { createTestIssuer, type TestIssuer } from '../../support/token-issuer.ts'

const now = Date.parse('2030-01-01T00:00:00Z')
const cart = 'system:serviceaccount:shop:cart'
let one: TestIssuer
let two: TestIssuer
beforeAll(async () => {
  one = await createTestIssuer('https://one.example', { alg: 'ES256', now })
  two = await createTestIssuer('https://two.example', { alg: 'ES256', now })
})

interface Choices {
  readonly profile?: Profile
  readonly source?: JwksSource
}

/** `rules` in YAML's flow style, each of a RequestAuthentication of its own. */
function authentication(
  rules: readonly string[],
  { profile = 'strict', source = () => undefined }: Choices = {},
): Authentication {
  const text = rules
    .map(
      (rule, i) => `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: r${i}, namespace: shop }
spec: { jwtRules: [${rule}] }
`,
    )
    .join('---\n')
  const { authentications } = readPolicies([{ name: 'f.yaml', text }])
  return createAuthentication(authentications, source, profile)
}

const ruleOf = (issuer: TestIssuer, more = '') =>
  `{ issuer: "${issuer.issuer}", jwks: '${issuer.jwks}'${more} }`

function asked(target: string, headers: readonly string[] = [], method = 'GET') {
  const http = readHttp({ method, target, host: 'h', headers }, defaultMesh)
  if (isRejection(http)) throw new Error(http.reason)
  return http
}

function outcome(its: Authentication, headers: readonly string[], target = '/', at = now) {
  const result = its.authenticate(asked(target, headers), at)
  return isRejection(result) ? result.status : (result.claims?.sub ?? 'nobody')
}

const bearer = (token: string) => ['Authorization', `Bearer ${token}`]

describe('a token is found', () => {
  it('in the usual places', async () => {
    const [its, token] = [authentication([ruleOf(one)]), await one.token()]
    expect(outcome(its, bearer(token))).toBe(cart)
    expect(outcome(its, [], `/?access_token=${token}`)).toBe(cart)
    expect(outcome(its, ['x-token', token])).toBe('nobody')
    expect(outcome(its, ['authorization', 'Basic abc'])).toBe('nobody')
    expect(outcome(its, ['authorization', 'Bearer '])).toBe('nobody')
  })

  it('in the places that a rule names, and then in no other', async () => {
    const places =
      'fromHeaders: [{ name: X-Token, prefix: "jwt:" }], fromParams: [t], fromCookies: [c]'
    const [its, token] = [authentication([ruleOf(one, `, ${places}`)]), await one.token()]
    expect(outcome(its, ['x-token', `jwt:${token}`])).toBe(cart)
    expect(outcome(its, [], `/?t=${token}`)).toBe(cart)
    expect(outcome(its, ['cookie', `a=b; c="${token}"`])).toBe(cart)
    for (const headers of [bearer(token), ['x-token', token], ['cookie', `cc=${token}; c`]]) {
      expect(outcome(its, headers)).toBe('nobody')
    }
  })

  it('in strict whatever the case of its scheme, in istio in that case only', async () => {
    const token = await one.token()
    const headers = ['authorization', `bEARER ${token}`]
    expect(outcome(authentication([ruleOf(one)]), headers)).toBe(cart)
    expect(outcome(authentication([ruleOf(one)], { profile: 'istio' }), headers)).toBe('nobody')
  })
})

describe('the answer', () => {
  it('without any rule is nobody, whatever is brought', () => {
    expect(outcome(authentication([]), bearer('a.b.c'))).toBe('nobody')
  })

  it('to a token for another audience is 401, in istio 403; to any other bad one 401', async () => {
    const rule = ruleOf(one, ', audiences: [svc]')
    const [strict, istio] = [authentication([rule]), authentication([rule], { profile: 'istio' })]
    const [other, late] = [await one.token(), await one.token({ exp: 1, aud: 'other' })]
    expect([outcome(strict, bearer(other)), outcome(istio, bearer(other))]).toEqual([401, 403])
    expect([outcome(strict, bearer(late)), outcome(istio, bearer(late))]).toEqual([401, 401])
  })

  it('to two tokens: each has to hold, and in strict both are of one subject', async () => {
    const rules = [ruleOf(one), ruleOf(two, ', fromHeaders: [{ name: x-two }]')]
    const headers = async (claims: object = {}) => [
      ...bearer(await one.token()),
      ...['x-two', await two.token({ ...claims })],
    ]
    const [strict, istio] = [authentication(rules), authentication(rules, { profile: 'istio' })]
    expect(outcome(strict, await headers())).toBe(401)
    expect(outcome(istio, await headers({ sub: 'x' }))).toBe(cart)
    expect(outcome(istio, await headers({ exp: 1 }))).toBe(401)
    const again = ['x-token', await one.token({ jti: '2' })]
    const same = authentication([ruleOf(one), ruleOf(one, ', fromHeaders: [{ name: x-token }]')])
    expect(outcome(same, [...bearer(await one.token()), ...again])).toBe(cart)
  })

  it('to more tokens than eight is 401, though each of them holds', async () => {
    const tokens = await Promise.all(
      Array.from({ length: 9 }, (_, i) => one.token({ jti: `${i}` })),
    )
    const its = authentication([ruleOf(one)])
    expect(outcome(its, tokens.slice(1).flatMap(bearer))).toBe(cart)
    expect(outcome(its, tokens.flatMap(bearer))).toBe(401)
  })

  it('to the question of a browser is nobody: it is no request yet', () => {
    const its = authentication([ruleOf(one)])
    const preflight = ['origin', 'https://a', 'access-control-request-method', 'GET']
    const answered = (method: string, headers: readonly string[]) =>
      isRejection(its.authenticate(asked('/', [...headers, ...bearer('a.b.c')], method), now))
    expect(answered('OPTIONS', preflight)).toBe(false)
    expect(answered('OPTIONS', preflight.slice(2))).toBe(true)
    expect(answered('GET', preflight)).toBe(true)
  })
})

describe('verified tokens are remembered', () => {
  const claimsOf = (its: Authentication, headers: readonly string[], at = now) => {
    const result = its.authenticate(asked('/', headers), at)
    return isRejection(result) ? result.status : result.claims
  }

  it('by their hash: the same token is not verified twice, another one is', async () => {
    const its = authentication([ruleOf(one)])
    const [token, other] = [await one.token(), await one.token({ jti: 'other' })]
    const first = claimsOf(its, bearer(token))
    expect(first).toMatchObject({ sub: cart })
    expect(claimsOf(its, bearer(token))).toBe(first)
    expect(claimsOf(its, bearer(other))).not.toBe(first)
    const dot = token.lastIndexOf('.')
    expect(claimsOf(its, bearer(`${token.slice(0, dot + 5)}AAAA${token.slice(dot + 9)}`))).toBe(401)
  })

  it('until they expire', async () => {
    const its = authentication([ruleOf(one)])
    const token = await one.token({ exp: now / 1000 + 100 })
    expect(claimsOf(its, bearer(token))).toMatchObject({ sub: cart })
    expect(claimsOf(its, bearer(token), now + 159_000)).toMatchObject({ sub: cart })
    expect(claimsOf(its, bearer(token), now + 161_000)).toBe(401)
  })

  it('for the place they were found in: elsewhere another rule may speak', async () => {
    const rules = [
      ruleOf(one, ', fromHeaders: [{ name: x-a }]'),
      ruleOf(one, ', audiences: [other], fromHeaders: [{ name: x-b }]'),
    ]
    const [its, token] = [authentication(rules), await one.token()]
    expect(claimsOf(its, ['x-a', token])).toMatchObject({ sub: cart })
    expect(claimsOf(its, ['x-b', token])).toBe(401)
  })

  it('for the keys they were verified with: when those go, they are verified again', async () => {
    const keysIn = ({ jwks }: TestIssuer): readonly IssuerKey[] => {
      const read = readJwks(jwks)
      if (!read.ok) throw new Error(read.problem)
      return read.keys
    }
    const asks: string[] = []
    let keys: readonly IssuerKey[] | undefined = keysIn(one)
    const source: JwksSource = (uri) => {
      asks.push(uri)
      return keys
    }
    const rule = `{ issuer: "${one.issuer}", jwksUri: "https://one.example/keys" }`
    const [its, token] = [authentication([rule], { source }), await one.token()]
    const first = claimsOf(its, bearer(token))
    expect(claimsOf(its, bearer(token))).toBe(first)
    expect(new Set(asks)).toEqual(new Set(['https://one.example/keys']))
    keys = keysIn(one)
    expect(claimsOf(its, bearer(token))).not.toBe(first)
    expect(claimsOf(its, bearer(token))).toEqual(first)
    keys = keysIn(two)
    expect(claimsOf(its, bearer(token))).toBe(401)
    keys = undefined
    expect(claimsOf(its, bearer(token))).toBe(401)
  })
})

describe('claims that a rule says are lists', () => {
  it('are split at spaces, those of a verified token and those that somebody else verified', async () => {
    const rules = [ruleOf(one, ', spaceDelimitedClaims: [scope]'), ruleOf(two)]
    const its = authentication(rules)
    const claims = { scope: ' read  write', other: 'a b', list: ['x'] }
    const split = { ...claims, scope: ['read', 'write'] }
    const result = its.authenticate(asked('/', bearer(await one.token(claims))), now)
    expect(result).toMatchObject({ claims: split })
    expect(its.readClaims({ iss: one.issuer, ...claims })).toEqual({ iss: one.issuer, ...split })
    expect(its.readClaims({ iss: two.issuer, ...claims })).toEqual({ iss: two.issuer, ...claims })
  })
})

describe('how the request changes', () => {
  const changes = (its: Authentication, headers: readonly string[]) => {
    const result = its.authenticate(asked('/', headers), now)
    if (isRejection(result)) throw new Error(result.reason)
    const { drops, dropsParameters, adds } = result
    return { drops, dropsParameters, adds }
  }

  it('a token is taken out of where it is looked for, unless it is to be forwarded', async () => {
    const headers = bearer(await one.token())
    const nothing = { drops: [], dropsParameters: [], adds: [] }
    expect(changes(authentication([ruleOf(one)]), headers)).toEqual({
      ...{ ...nothing, drops: ['authorization'], dropsParameters: ['access_token'] },
    })
    expect(changes(authentication([ruleOf(one)]), [])).toEqual(nothing)
    const forwarding = authentication([ruleOf(one, ', forwardOriginalToken: true')])
    expect(changes(forwarding, headers)).toEqual(nothing)
  })

  it('claims become headers as far as a header can hold them, and only ours are believed', async () => {
    const outputs = ['text', 'number', 'flag', 'list', 'strange', 'none']
      .map((it) => `{ header: X-${it}, claim: ${it} }`)
      .join(', ')
    const its = authentication([
      ruleOf(one, `, forwardOriginalToken: true, outputClaimToHeaders: [${outputs}]`),
    ])
    const claims = { text: 'a b', number: 5, flag: true, list: ['a'], strange: 'a\nb' }
    const own = ['x-text', 'x-number', 'x-flag', 'x-list', 'x-strange', 'x-none']
    expect(changes(its, bearer(await one.token(claims)))).toEqual({
      ...{ drops: own, dropsParameters: [] },
      adds: ['X-text', 'a b', 'X-number', '5', 'X-flag', 'true'],
    })
    expect(changes(its, []).drops).toEqual(own)
  })
})

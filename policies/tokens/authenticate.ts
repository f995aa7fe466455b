// What RequestAuthentication demands of a request (authorization.md §4.13): no token passes without
// identity, a token that does not hold is refused, and every token that is found has to hold.
import { createHash } from 'node:crypto'
import {
  type Claims,
  type HttpAttributes,
  isRejection,
  type Rejection,
  reject,
} from '../attributes/request.ts'
import type { Profile } from '../language/mesh.ts'
import type { RequestAuthentication } from '../language/read.ts'
import type { JwtRuleDocument } from '../language/request-authentication.ts'
import { type FoundToken, type Location, locationsOf, placeOf, tokensAt } from './find.ts'
import { type IssuerKey, readJwks } from './jwks.ts'
import { issuerOf, type Verified, verifyToken } from './verify.ts'

/** The keys of an issuer by their address; undefined while they cannot be had. Never waits. */
export type JwksSource = (uri: string) => readonly IssuerKey[] | undefined

/** What was found out, and how the request changes before it is forwarded. */
export interface Authenticated {
  readonly claims: Claims | undefined
  /** header names, in lower case, that only a verified token may fill */
  readonly own: readonly string[]
  /** header names that are not forwarded, in lower case */
  readonly drops: readonly string[]
  /** query parameters that are not forwarded */
  readonly dropsParameters: readonly string[]
  /** names and values in turn */
  readonly adds: readonly string[]
}

export interface Authentication {
  /** What rules compare of a token that somebody else has verified. */
  readClaims(claims: Claims): Claims
  /** `now` in milliseconds. */
  authenticate(http: HttpAttributes, now: number): Authenticated | Rejection
}

interface TokenRule {
  readonly document: JwtRuleDocument
  /** undefined accepts every issuer */
  readonly issuer: string | undefined
  readonly locations: readonly Location[]
  readonly places: ReadonlySet<string>
  readonly keys: () => readonly IssuerKey[] | undefined
}

interface Holding {
  readonly claims: Claims
  readonly rule: TokenRule
  readonly keys: readonly IssuerKey[] | undefined
}

const mostKept = 10_000
// a request that brings more has none of them looked at
const mostTokens = 8

function ruleOf(document: JwtRuleDocument, source: JwksSource): TokenRule {
  const locations = locationsOf(document)
  const uri = document.jwksUri ?? document.jwks_uri
  const inline = document.jwks === undefined ? undefined : readJwks(document.jwks)
  const fixed = inline?.ok ? inline.keys : undefined
  return {
    document,
    issuer: document.issuer === '' ? undefined : document.issuer,
    locations,
    places: new Set(locations.map(placeOf)),
    keys: uri === undefined ? () => fixed : () => source(uri),
  }
}

function isPreflight({ method, headers }: HttpAttributes): boolean {
  return (
    method === 'OPTIONS' &&
    headers.values('origin').length > 0 &&
    headers.values('access-control-request-method').length > 0
  )
}

/** Lists with spaces between become lists (§4.7). */
function withLists(claims: Claims, names: readonly string[] = []): Claims {
  if (names.length === 0) return claims
  const changed = Object.entries(claims).map(([name, value]): [string, unknown] =>
    names.includes(name) && typeof value === 'string'
      ? [name, value.split(' ').filter((part) => part !== '')]
      : [name, value],
  )
  return Object.fromEntries(changed)
}

function headerText(value: unknown): string | undefined {
  if (typeof value === 'string') return /^[\x20-\x7e]*$/.test(value) ? value : undefined
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined
}

function addedBy({ claims, rule: { document } }: Holding): string[] {
  const { outputPayloadToHeader: payload, outputClaimToHeaders: outputs = [] } = document
  const whole =
    payload === undefined
      ? []
      : [payload, Buffer.from(JSON.stringify(claims)).toString('base64url')]
  const single = outputs.flatMap(({ header, claim }) => {
    const text = headerText(claims[claim])
    return text === undefined ? [] : [header, text]
  })
  return [...whole, ...single]
}

/** What only we may set is never taken from outside, with or without token. */
function ownHeaders(rules: readonly TokenRule[]): string[] {
  return rules.flatMap(({ document: { outputPayloadToHeader, outputClaimToHeaders = [] } }) =>
    [outputPayloadToHeader, ...outputClaimToHeaders.map(({ header }) => header)].flatMap(
      (name) => name?.toLowerCase() ?? [],
    ),
  )
}

function isSamePerson(one: Claims, other: Claims): boolean {
  return one.iss === other.iss && one.sub === other.sub
}

/** Verified tokens by their hash; what was verified with other keys is verified again. */
function createVerification(rules: readonly TokenRule[]) {
  const kept = new Map<string, Holding>()

  function fresh(found: FoundToken, now: number): Holding | Extract<Verified, { ok: false }> {
    let last: Extract<Verified, { ok: false }> | undefined
    const issuer = issuerOf(found.token)
    for (const rule of rules) {
      const { issuer: expected } = rule
      if (!rule.places.has(found.place)) continue
      if (expected !== undefined && issuer !== undefined && expected !== issuer) continue
      const keys = rule.keys()
      const { audiences } = rule.document
      const verified = verifyToken(found.token, { issuer: expected, audiences, keys }, now)
      if (verified.ok) {
        const claims = withLists(verified.claims, rule.document.spaceDelimitedClaims)
        return { claims, rule, keys }
      }
      last = verified
    }
    return last ?? { ok: false, problem: 'token', reason: 'nobody knows its issuer' }
  }

  return (found: FoundToken, now: number): Holding | Extract<Verified, { ok: false }> => {
    const hash = createHash('sha256').update(found.place).update('\0').update(found.token)
    const key = hash.digest('base64')
    const known = kept.get(key)
    const exp = known?.claims.exp
    const lives = typeof exp !== 'number' || exp * 1000 > now
    if (known !== undefined && lives && known.rule.keys() === known.keys) return known
    const made = fresh(found, now)
    if ('claims' in made) {
      if (kept.size >= mostKept) kept.clear()
      kept.set(key, made)
    }
    return made
  }
}

function tokensOf(rules: readonly TokenRule[], http: HttpAttributes, profile: Profile) {
  const found = new Map<string, FoundToken>()
  for (const { locations } of rules) {
    for (const location of locations) {
      for (const token of tokensAt(location, http, profile)) {
        found.set(`${token.place}\0${token.token}`, token)
      }
    }
  }
  return [...found.values()]
}

function whatChanges(
  rules: readonly TokenRule[],
  own: readonly string[],
  holdings: readonly Holding[],
): Omit<Authenticated, 'claims'> {
  const hidden = holdings
    .filter(({ rule }) => rule.document.forwardOriginalToken !== true)
    .flatMap(({ rule }) => rule.locations)
  const named = (kind: Location['in']) =>
    hidden.filter((it) => it.in === kind).map(({ name }) => name)
  return {
    own,
    drops: rules.length === 0 ? [] : [...own, ...named('header')],
    dropsParameters: named('query'),
    adds: holdings.flatMap(addedBy),
  }
}

/** The RequestAuthentications of one destination, merged. */
export function createAuthentication(
  documents: readonly RequestAuthentication[],
  source: JwksSource,
  profile: Profile,
): Authentication {
  const rules = documents.flatMap((it) => it.rules).map((it) => ruleOf(it, source))
  const own = ownHeaders(rules)
  const verify = createVerification(rules)
  const anonymous = { claims: undefined, ...whatChanges(rules, own, []) }

  function holdingsOf(tokens: readonly FoundToken[], now: number): Holding[] | Rejection {
    const holdings: Holding[] = []
    for (const token of tokens) {
      const result = verify(token, now)
      if (!('claims' in result)) {
        const isForbidden = profile === 'istio' && result.problem === 'audience'
        return reject(isForbidden ? 403 : 401, `the token is refused: ${result.reason}`)
      }
      holdings.push(result)
    }
    return holdings
  }

  return {
    readClaims(claims) {
      const concerned = rules.filter(({ issuer }) => issuer === undefined || issuer === claims.iss)
      return withLists(
        claims,
        concerned.flatMap(({ document }) => document.spaceDelimitedClaims ?? []),
      )
    },
    authenticate(http, now) {
      if (rules.length === 0 || isPreflight(http)) return anonymous
      const tokens = tokensOf(rules, http, profile)
      if (tokens.length === 0) return anonymous
      if (tokens.length > mostTokens) return reject(401, `more than ${mostTokens} tokens`)
      const holdings = holdingsOf(tokens, now)
      if (isRejection(holdings)) return holdings
      const [first, ...others] = holdings
      if (first === undefined) return anonymous
      const differs = others.some(({ claims }) => !isSamePerson(first.claims, claims))
      if (profile === 'strict' && differs) return reject(401, 'tokens of two subjects')
      return { claims: first.claims, ...whatChanges(rules, own, holdings) }
    },
  }
}

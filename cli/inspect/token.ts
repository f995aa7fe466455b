// A JWT-SVID or WIT-SVID by the rules of its standard, the signature excepted: that takes a bundle.
import { isSpiffeId } from '../../spiffe/id.ts'
import { isMembers, type Members } from '../../spiffe/json.ts'
import {
  type Jws,
  jwsHeaderOf,
  jwsPayloadOf,
  type TokenRule,
  type TokenTime,
} from '../../spiffe/jws.ts'
import { jwtRules } from '../../spiffe/jwt-svid.ts'
import { witRules } from '../../spiffe/wit-svid.ts'
import { type Finding, finding, type Inspection, notJudged, problemOf } from './finding.ts'

export type TokenKind = 'jwt' | 'wit'

interface Profile {
  readonly name: string
  readonly form: string
  readonly rules: Readonly<Record<string, TokenRule>>
  readonly open: readonly Finding[]
}

const profiles: Readonly<Record<TokenKind, Profile>> = {
  jwt: {
    name: 'JWT-SVID',
    form: 'JW-1 a compact JWS of JSON objects, no member twice',
    rules: jwtRules,
    open: [
      notJudged(
        'JW-8 JW-15 a receiver that it names, a signature by a key of the bundle',
        'castellan svid verify --jwt',
      ),
    ],
  },
  wit: {
    name: 'WIT-SVID',
    form: 'WIT-SVID §1 a compact JWS of JSON objects, no member twice',
    rules: witRules,
    open: [
      notJudged('WT-20 a signature by a key of the bundle', 'no bundle is at hand'),
      notJudged('WT-17 its holder has the key', 'a token alone proves nothing'),
    ],
  },
}

const keyMembers = ['kty', 'crv', 'n', 'x']
const privateMembers = new Set(['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'])

/** The claims without the private halves of keys, which somebody may have put there. */
function withoutSecrets(claims: Members): unknown {
  const text = JSON.stringify(claims, function (this: unknown, name, value: unknown) {
    const isSecret =
      isMembers(this) && keyMembers.some((it) => it in this) && privateMembers.has(name)
    return isSecret ? '(not shown)' : value
  })
  return JSON.parse(text)
}

const dates = ['iat', 'nbf', 'exp'] as const

/** Those that are times, readable. */
function timesOf(payload: Members): Record<string, string> {
  const found = dates.flatMap((name) => {
    const value = payload[name]
    const at = new Date(typeof value === 'number' ? value * 1000 : Number.NaN)
    return Number.isNaN(at.getTime()) ? [] : [[name, at.toISOString()] as const]
  })
  return Object.fromEntries(found)
}

/** Header and payload, each by itself: one may be read where the other may not. */
function read(token: string): { jws: Jws | undefined; problem: string | undefined } {
  const problem = problemOf(() => jwsHeaderOf(token)) ?? problemOf(() => jwsPayloadOf(token))
  if (problem !== undefined) return { jws: undefined, problem }
  const jws = { token, header: jwsHeaderOf(token), payload: jwsPayloadOf(token) }
  return { jws, problem }
}

export function inspectToken(
  kind: TokenKind,
  token: string,
  where: string,
  at: TokenTime,
): Inspection {
  const profile = profiles[kind]
  const { name, rules, open } = profile
  const { jws, problem } = read(token)
  const form = finding(profile.form, problem)
  if (jws === undefined) return { kind, where, what: `no ${name}`, facts: {}, findings: [form] }
  const { header, payload } = jws
  const findings = Object.entries(rules).map(([rule, check]) =>
    finding(
      rule,
      problemOf(() => check(jws, at)),
    ),
  )
  const { sub } = payload
  const what =
    typeof sub === 'string' && isSpiffeId(sub) ? `a token of ${sub}` : 'a token of nobody'
  const facts = {
    header: withoutSecrets(header),
    claims: withoutSecrets(payload),
    times: timesOf(payload),
  }
  return { kind, where, what, facts, findings: [form, ...findings, ...open] }
}

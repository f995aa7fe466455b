// Tokens of callers, verified in one turn: a decision waits for nothing. (jose signs and verifies where
// nobody waits; its verification is asynchronous.)
import { verify as checkSignature, constants, type KeyObject } from 'node:crypto'
import type { Members } from '../../spiffe/json.ts'
import { jwsHeaderOf, jwsPayloadOf } from '../../spiffe/jws.ts'
import type { Claims } from '../attributes/request.ts'
import type { IssuerKey } from './jwks.ts'

export type Verified =
  | { readonly ok: true; readonly claims: Claims }
  | { readonly ok: false; readonly problem: 'token' | 'audience'; readonly reason: string }

export interface Expected {
  /** undefined accepts every issuer */
  readonly issuer: string | undefined
  readonly audiences: readonly string[] | undefined
  /** undefined while they cannot be had: then nothing is accepted */
  readonly keys: readonly IssuerKey[] | undefined
}

interface Algorithm {
  readonly hash: string | null
  readonly type: 'rsa' | 'ec' | 'ed25519'
  readonly curve?: string
  readonly pss?: boolean
}

/** RFC 7518 §3.1, RFC 8037 §3.1: no other algorithm is looked at. */
const algorithms: ReadonlyMap<unknown, Algorithm> = new Map<unknown, Algorithm>([
  ['RS256', { hash: 'sha256', type: 'rsa' }],
  ['RS384', { hash: 'sha384', type: 'rsa' }],
  ['RS512', { hash: 'sha512', type: 'rsa' }],
  ['PS256', { hash: 'sha256', type: 'rsa', pss: true }],
  ['PS384', { hash: 'sha384', type: 'rsa', pss: true }],
  ['PS512', { hash: 'sha512', type: 'rsa', pss: true }],
  ['ES256', { hash: 'sha256', type: 'ec', curve: 'prime256v1' }],
  ['ES384', { hash: 'sha384', type: 'ec', curve: 'secp384r1' }],
  ['ES512', { hash: 'sha512', type: 'ec', curve: 'secp521r1' }],
  ['EdDSA', { hash: null, type: 'ed25519' }],
])

const leeway = 60_000

const refuse = (reason: string, problem: 'token' | 'audience' = 'token'): Verified => ({
  ok: false,
  problem,
  reason,
})

function fits(key: KeyObject, { type, curve }: Algorithm): boolean {
  const { asymmetricKeyType, asymmetricKeyDetails } = key
  return asymmetricKeyType === type && asymmetricKeyDetails?.namedCurve === curve
}

function isSigned(token: string, algorithm: Algorithm, key: KeyObject): boolean {
  const dot = token.lastIndexOf('.')
  const pss = {
    padding: constants.RSA_PKCS1_PSS_PADDING,
    saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
  }
  return checkSignature(
    algorithm.hash,
    Buffer.from(token.slice(0, dot), 'latin1'),
    { key, dsaEncoding: 'ieee-p1363', ...(algorithm.pss ? pss : {}) },
    Buffer.from(token.slice(dot + 1), 'base64url'),
  )
}

function signatureProblem(token: string, header: Members, keys: readonly IssuerKey[]) {
  const algorithm = algorithms.get(header.alg)
  if (algorithm === undefined) return 'its algorithm is not accepted'
  if (header.crit !== undefined) return 'its header demands what is not understood (crit)'
  const candidates = keys.filter(
    ({ keyId, algorithm: only, key }) =>
      (header.kid === undefined || keyId === undefined || keyId === header.kid) &&
      (only === undefined || only === header.alg) &&
      fits(key, algorithm),
  )
  if (candidates.length === 0) return 'no key of its issuer has its key id and algorithm'
  return candidates.some(({ key }) => isSigned(token, algorithm, key))
    ? undefined
    : 'its signature is wrong'
}

function timeProblem({ exp, nbf, iat }: Members, now: number): string | undefined {
  for (const [name, value] of Object.entries({ exp, nbf, iat })) {
    if (value !== undefined && typeof value !== 'number') return `its ${name} is no number`
  }
  if (typeof exp === 'number' && now > exp * 1000 + leeway) return 'it has expired'
  if (typeof nbf === 'number' && now < nbf * 1000 - leeway) return 'it is not valid yet'
  return undefined
}

function audiencesOf({ aud }: Members): readonly unknown[] {
  return Array.isArray(aud) ? aud : [aud]
}

/** The issuer that a token names itself, before anything is verified; undefined for what is no token. */
export function issuerOf(token: string): string | undefined {
  try {
    const { iss } = jwsPayloadOf(token)
    return typeof iss === 'string' ? iss : ''
  } catch {
    return undefined
  }
}

/** `now` in milliseconds. Never throws; the reason never contains the token. */
export function verifyToken(token: string, expected: Expected, now: number): Verified {
  try {
    const header = jwsHeaderOf(token)
    const claims = jwsPayloadOf(token)
    const { issuer, audiences, keys } = expected
    if (issuer !== undefined && claims.iss !== issuer) return refuse('of another issuer')
    if (keys === undefined) return refuse('the keys of its issuer cannot be had at present')
    const problem = signatureProblem(token, header, keys) ?? timeProblem(claims, now)
    if (problem !== undefined) return refuse(problem)
    if (
      audiences !== undefined &&
      !audiencesOf(claims).some((it) => audiences.includes(String(it)))
    ) {
      return refuse('it is for another audience', 'audience')
    }
    return { ok: true, claims }
  } catch (error) {
    return refuse(error instanceof Error ? error.message : 'it cannot be read')
  }
}

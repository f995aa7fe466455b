// A caller by its bearer token: a service account's, signed by an issuer that the configuration names.
import { decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { z } from 'zod'
import type { Clock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { SpiffeId, TrustDomain } from '../../spiffe/id.ts'
import { idOfServiceAccount } from './service-account.ts'

export interface TokenIssuer {
  /** the `iss` of its tokens, byte by byte */
  readonly issuer: string
  /** one of them has to be in `aud` */
  readonly audiences: readonly string[]
  readonly keys: JWTVerifyGetKey
}

export interface TokenRules {
  readonly trustDomain: TrustDomain
  readonly clock: Pick<Clock, 'now'>
  readonly issuers: readonly TokenIssuer[]
}

export interface TokenHolder {
  readonly id: SpiffeId
  readonly issuer: string
}

/** Signatures only: with a MAC, whoever has the issuer's public key could sign. */
const algorithms = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
]
const longestToken = 8192
/** seconds by which our clock and the issuer's may differ */
const skew = 5

function refuse(message: string, cause?: unknown): never {
  throw new IdentityError('ERR_UNTRUSTED', message, { cause })
}

function tokenOf(authorization: string): string {
  const [, token] = /^(?:Bearer|Istio) ([\w.-]+)$/.exec(authorization) ?? []
  if (token === undefined) return refuse('authorization is no bearer token')
  if (token.length > longestToken) refuse(`the token is longer than ${longestToken} bytes`)
  return token
}

/** Only to choose the issuer whose keys will verify it. */
function claimedIssuer(token: string): string | undefined {
  try {
    return decodeJwt(token).iss
  } catch (cause) {
    return refuse('the token cannot be read', cause)
  }
}

/** What Kubernetes says beside `sub` (projected tokens); it has to say the same. */
const kubernetes = z
  .object({
    namespace: z.string(),
    serviceaccount: z.object({ name: z.string() }),
  })
  .optional()

function subjectOf(payload: JWTPayload): string {
  const { sub = '' } = payload
  const bound = kubernetes.safeParse(payload['kubernetes.io'])
  if (!bound.success) return refuse('the claim kubernetes.io names no service account')
  if (bound.data === undefined) return sub
  const { namespace, serviceaccount } = bound.data
  if (sub === `system:serviceaccount:${namespace}:${serviceaccount.name}`) return sub
  return refuse('the claims sub and kubernetes.io name different service accounts')
}

async function verified(token: string, { issuer, audiences, keys }: TokenIssuer, now: number) {
  try {
    return await jwtVerify(token, keys, {
      issuer,
      audience: [...audiences],
      algorithms,
      requiredClaims: ['sub', 'exp'],
      clockTolerance: skew,
      currentDate: new Date(now),
    })
  } catch (cause) {
    if (cause instanceof errors.JOSEError) return refuse('the token does not verify', cause)
    throw cause
  }
}

/**
 * Whose token it is. `authorization` is `Bearer TOKEN` or `Istio TOKEN`. Throws ERR_UNTRUSTED for one that does not
 * convince, ERR_UNAVAILABLE when the issuer's keys cannot be had.
 */
export async function holderOf(authorization: string, rules: TokenRules): Promise<TokenHolder> {
  const token = tokenOf(authorization)
  const claimed = claimedIssuer(token)
  const issuer = rules.issuers.find((it) => it.issuer === claimed)
  if (issuer === undefined) return refuse('the token is of an issuer that is not configured')
  const { payload } = await verified(token, issuer, rules.clock.now())
  return { id: idOfServiceAccount(subjectOf(payload), rules.trustDomain), issuer: issuer.issuer }
}

// WIT-SVIDs: tokens bound to a key of their holder, and how one is verified (WIT-SVID §2 to §4, §6.2).
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { TokenKey } from './bundle-document.ts'
import { type SpiffeId, type TrustDomain, trustDomainOf } from './id.ts'
import { isMembers, type Members } from './json.ts'
import {
  checkFit,
  checkSignature,
  type Jws,
  kindOfAlgorithm,
  quoted,
  readJws,
  refuseToken,
  type TokenRule,
} from './jws.ts'
import { keyProblem } from './signature.ts'
import { expiryOf, issuedAtOf, notBeforeOf, subjectOf, timeOf } from './token-claims.ts'

export interface WitSvid {
  readonly id: SpiffeId
  /** the holder's public key, and the algorithm of its proofs */
  readonly key: KeyObject
  readonly algorithm: string
  /** milliseconds since the epoch */
  readonly expiresAt: number
  readonly notBefore: number | undefined
  readonly issuedAt: number | undefined
  readonly claims: Readonly<Record<string, unknown>>
  readonly token: string
}

// RFC 7518 §6.2.2, §6.3.2, §6.4
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

function publicKeyOf(jwk: Members): KeyObject {
  // of a fixed list: what else a JWK may hold says nothing about the key
  const key: Record<string, string> = {}
  for (const name of ['kty', 'crv', 'x', 'y', 'n', 'e']) {
    const value = jwk[name]
    if (typeof value === 'string') key[name] = value
  }
  try {
    return createPublicKey({ key, format: 'jwk' })
  } catch (cause) {
    return refuseToken('cnf.jwk is no public key', cause)
  }
}

/** The holder's key (RFC 7800 §3.2). Throws ERR_UNTRUSTED. */
function holderOf({ payload: { cnf } }: Jws): { key: KeyObject; algorithm: string } {
  if (!isMembers(cnf)) return refuseToken('cnf is missing or no JSON object')
  const { jwk } = cnf
  if (!isMembers(jwk)) return refuseToken('cnf.jwk is missing or no JSON object')
  kindOfAlgorithm(jwk.alg)
  const secret = privateMembers.find((name) => name in jwk)
  if (secret !== undefined) return refuseToken(`cnf.jwk holds a private key (${secret})`)
  const key = publicKeyOf(jwk)
  checkFit(jwk.alg, key)
  const problem = keyProblem(key)
  if (problem !== undefined) return refuseToken(`cnf.jwk is ${problem}`)
  return { key, algorithm: String(jwk.alg) }
}

/** The rules by name, that of the signature excepted; each throws ERR_UNTRUSTED. */
export const witRules: Readonly<Record<string, TokenRule>> = {
  'WT-3 alg is one of the nine': ({ header }) => kindOfAlgorithm(header.alg),
  'WT-1 kid is a text': ({ header: { kid } }) => {
    if (typeof kid !== 'string' || kid === '') refuseToken('kid is missing or no text')
  },
  'WT-2 typ is wit+jwt': ({ header: { typ } }) => {
    if (typ !== 'wit+jwt') refuseToken(`typ is ${quoted(typ)}, not wit+jwt`)
  },
  // no extension is known here, so whatever it lists is unknown
  'WT-4 nothing critical in the header': ({ header }) => {
    if ('crit' in header) refuseToken('the header has the member "crit"')
  },
  'WT-5 sub is a SPIFFE ID with a path': subjectOf,
  'WT-6 WT-7 cnf holds a public key and its algorithm': holderOf,
  'WT-9 exp is present and to come': expiryOf,
  'WT-10 nbf, when present, is not to come': notBeforeOf,
  'WT-11 iat, when present, is a time': issuedAtOf,
  'WT-13 no aud': ({ payload }) => {
    if ('aud' in payload) refuseToken('aud is present, which a WIT-SVID never has')
  },
}

export interface VerifyWitOptions {
  /** the wit-svid keys of a trust domain, of no other use; undefined when it is not trusted */
  readonly keys: (trustDomain: TrustDomain) => readonly TokenKey[] | undefined
  /** milliseconds since the epoch */
  readonly now: number
  /** milliseconds, at most two minutes */
  readonly leeway?: number
}

const mostLeeway = 120_000

/**
 * Verifies a WIT-SVID: its form, its claims, then a signature by a key of the subject's own trust domain.
 * Throws ERR_UNTRUSTED with the reason. The token alone proves nothing about who sent it: whoever presents it
 * has to prove with each request that it holds `key` (§4, §7.1), which is for the caller to check.
 */
export async function verifyWitSvid(token: string, options: VerifyWitOptions): Promise<WitSvid> {
  const { keys, now, leeway = 0 } = options
  const at = timeOf(now, leeway, mostLeeway)
  const jws = readJws(token)
  for (const rule of Object.values(witRules)) rule(jws, at)
  const id = subjectOf(jws)
  await checkSignature(jws, trustDomainOf(id), { keys, use: 'WIT-SVIDs' })
  return {
    id,
    ...holderOf(jws),
    expiresAt: expiryOf(jws, at),
    notBefore: notBeforeOf(jws, at),
    issuedAt: issuedAtOf(jws),
    claims: jws.payload,
    token,
  }
}

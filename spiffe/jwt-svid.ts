// JWT-SVIDs: what makes a token an identity, and how one is verified (JWT-SVID §2 to §4, §6.2).
import type { TokenKey } from './bundle-document.ts'
import { type SpiffeId, type TrustDomain, trustDomainOf } from './id.ts'
import {
  checkSignature,
  type Jws,
  kindOfAlgorithm,
  quoted,
  readJws,
  refuseToken,
  type TokenRule,
} from './jws.ts'
import { expiryOf, issuedAtOf, notBeforeOf, subjectOf, timeOf } from './token-claims.ts'

export interface JwtSvid {
  readonly id: SpiffeId
  readonly audience: readonly string[]
  /** milliseconds since the epoch */
  readonly expiresAt: number
  readonly issuedAt: number | undefined
  readonly claims: Readonly<Record<string, unknown>>
  /** whoever has it may use it until it expires: not for logs */
  readonly token: string
}

const headerMembers = ['alg', 'kid', 'typ']
const types = [undefined, 'JWT', 'JOSE']

/** At least one receiver, none of them empty. Throws ERR_UNTRUSTED. */
function audienceOf({ payload: { aud } }: Jws): readonly string[] {
  if (aud === undefined) return refuseToken('aud is missing')
  const audience: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  const names = audience.filter((name): name is string => typeof name === 'string')
  if (names.length === 0 || names.length < audience.length || names.includes(''))
    return refuseToken('aud is neither a text nor a list of texts that are not empty')
  return names
}

/** The rules by name, those of the signature and of the receiver excepted; each throws ERR_UNTRUSTED. */
export const jwtRules: Readonly<Record<string, TokenRule>> = {
  'JW-3 alg is one of the nine': ({ header }) => kindOfAlgorithm(header.alg),
  'JW-2 the header is alg, kid and typ': ({ header }) => {
    const other = Object.keys(header).find((name) => !headerMembers.includes(name))
    if (other !== undefined) refuseToken(`the header has the member ${quoted(other)}`)
  },
  'JW-4 kid, when present, is a text': ({ header: { kid } }) => {
    if (kid !== undefined && typeof kid !== 'string') refuseToken('kid is no text')
  },
  'JW-5 typ, when present, is JWT or JOSE': ({ header: { typ } }) => {
    if (!types.some((it) => it === typ)) refuseToken(`typ is ${quoted(typ)}, not JWT or JOSE`)
  },
  'JW-6 sub is a SPIFFE ID with a path': subjectOf,
  'JW-7 aud names a receiver': audienceOf,
  'JW-10 JW-11 exp is present and to come': expiryOf,
  'JW-12 nbf, when present, is not to come': notBeforeOf,
  'JW-12 iat, when present, is a time': issuedAtOf,
}

export interface VerifyJwtOptions {
  /** the jwt-svid keys of a trust domain, of no other use; undefined when it is not trusted */
  readonly keys: (trustDomain: TrustDomain) => readonly TokenKey[] | undefined
  /** who verifies: the token has to name it */
  readonly audience: string
  /** milliseconds since the epoch */
  readonly now: number
  /** milliseconds, at most a minute */
  readonly leeway?: number
}

const mostLeeway = 60_000

/**
 * Verifies a JWT-SVID: its form, its claims, its receiver, then a signature by a key of the subject's own
 * trust domain. Throws ERR_UNTRUSTED with the reason.
 */
export async function verifyJwtSvid(token: string, options: VerifyJwtOptions): Promise<JwtSvid> {
  const { keys, audience: receiver, now, leeway = 0 } = options
  const at = timeOf(now, leeway, mostLeeway)
  const jws = readJws(token)
  for (const rule of Object.values(jwtRules)) rule(jws, at)
  const id = subjectOf(jws)
  const audience = audienceOf(jws)
  if (!audience.includes(receiver)) refuseToken(`aud does not name ${quoted(receiver)}`)
  await checkSignature(jws, trustDomainOf(id), { keys, use: 'JWT-SVIDs' })
  const expiresAt = expiryOf(jws, at)
  return { id, audience, expiresAt, issuedAt: issuedAtOf(jws), claims: jws.payload, token }
}

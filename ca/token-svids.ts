// How a JWT-SVID or a WIT-SVID is born: authorize, record, sign, read back, deliver. What is signed is
// durable before the key is touched, as it is for certificates.
import { createPublicKey, type KeyObject, randomBytes } from 'node:crypto'
import { decodeProtectedHeader, exportJWK, jwtVerify, SignJWT } from 'jose'
import type { Clock } from '../runtime/clock.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { type Attested, checkVouched } from './attestors/attestor.ts'
import type { TokenKind } from './authorities/authorities.ts'
import type { Signing, Slot } from './authorities/slot.ts'
import type { TokenGrant } from './grants.ts'
import type { IssuanceTable } from './store/store.ts'

/** What leaves the process. */
export interface TokenSvid {
  readonly token: string
  readonly spiffeId: SpiffeId
  /** milliseconds since the epoch, whole seconds */
  readonly issuedAt: number
  readonly expiresAt: number
  readonly hint: string
}

/** What the token is for: a JWT-SVID names its receivers, a WIT-SVID the key of its holder. */
export type TokenPurpose =
  | { readonly kind: 'jwt'; readonly audience: readonly string[] }
  | { readonly kind: 'wit'; readonly holder: KeyObject; readonly algorithm: string }

export interface TokenSteps {
  readonly clock: Clock
  readonly table: Pick<IssuanceTable, 'recordToken'>
  readonly signer: (kind: TokenKind) => Signing<Slot>
  /** May `attested` have what is asked for? Throws ERR_DENIED. */
  readonly decide: (attested: Attested) => TokenGrant
  /** Told of each token once it is recorded; never of the token itself. */
  readonly audit: (issued: Omit<TokenSvid, 'token'> & { id: string; requester: string }) => void
}

const types: Readonly<Record<TokenKind, string>> = { jwt: 'JWT', wit: 'wit+jwt' }
const algorithm = 'ES256'
const second = 1000

/** Claims beside sub, iat and exp (JWT-SVID §3, WIT-SVID §3). */
async function claimsOf(purpose: TokenPurpose, id: string, includeId: boolean) {
  if (purpose.kind === 'jwt') {
    return { aud: [...purpose.audience], ...(includeId ? { jti: id } : {}) }
  }
  const jwk = await exportJWK(purpose.holder)
  return { cnf: { jwk: { ...jwk, alg: purpose.algorithm } }, jti: id }
}

/** The token as somebody else will read it: throws ERR_LINT when it says anything but what was granted. */
async function readBack(
  token: string,
  signer: Signing<Slot>,
  kind: TokenKind,
  now: number,
  sub: SpiffeId,
) {
  const key = createPublicKey(signer.key)
  const { payload } = await jwtVerify(token, key, {
    algorithms: [algorithm],
    typ: types[kind],
    currentDate: new Date(now),
    requiredClaims: ['sub', 'iat', 'exp', ...(kind === 'jwt' ? ['aud'] : ['cnf', 'jti'])],
  })
  const header = Object.keys(decodeProtectedHeader(token)).sort().join()
  if (payload.sub !== sub || header !== 'alg,kid,typ') {
    throw new IdentityError('ERR_LINT', `a signed token for ${sub} does not read back as granted`)
  }
}

/**
 * Issues one token SVID. Throws ERR_DENIED, ERR_NOT_FOUND, ERR_UNAVAILABLE, ERR_STORE; after any of them
 * nothing was delivered.
 */
export async function issueToken(
  purpose: TokenPurpose,
  attested: Attested,
  steps: TokenSteps,
): Promise<TokenSvid> {
  const { clock, table, signer, decide, audit } = steps
  const { kind } = purpose
  checkVouched(attested)
  const { spiffeId, lifetime, entryId, requester, includeId, hint } = decide(attested)
  const slot = signer(kind)
  const now = clock.now()
  const issuedAt = Math.floor(now / second) * second
  const end = Math.min(issuedAt + lifetime, slot.notAfter)
  const expiresAt = Math.floor(end / second) * second
  const id = randomBytes(16).toString('hex')
  const audience = purpose.kind === 'jwt' ? purpose.audience : []
  const record = { id, kind, spiffeId, authorityId: slot.id, requester, entryId, audience }
  await table.recordToken({ ...record, issuedAt, expiresAt })
  const token = await new SignJWT(await claimsOf(purpose, id, includeId))
    .setProtectedHeader({ alg: algorithm, kid: slot.id, typ: types[kind] })
    .setSubject(spiffeId)
    .setIssuedAt(issuedAt / second)
    .setExpirationTime(expiresAt / second)
    .sign(slot.key)
  await readBack(token, slot, kind, now, spiffeId)
  audit({ id, spiffeId, issuedAt, expiresAt, hint, requester })
  return { token, spiffeId, issuedAt, expiresAt, hint }
}

// The JWT profile of the Workload API (§6): tokens for an audience, the keys they are verified by, and the
// verification itself.
import { create, type JsonObject, toBinary } from '@bufbuild/protobuf'
import {
  JWTBundlesResponseSchema,
  type JWTSVIDRequest,
  type ValidateJWTSVIDRequest,
} from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import { formatBundleDocument, type TokenKey } from '../../spiffe/bundle-document.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { isSpiffeId, type TrustDomain } from '../../spiffe/id.ts'
import type { JwtSvid } from '../../spiffe/jwt-svid.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Session } from '../session.ts'
import { type HeldToken, type TokenCache, tokenKey } from '../token-svids.ts'
import { type Answer, federatedWith, hintsOf } from './entitled.ts'

/** Of which identity, or of all when it is empty, and for whom. */
export type WantedTokens = Pick<JWTSVIDRequest, 'spiffeId'> & {
  readonly audience: readonly string[]
}

export interface EntryToken {
  readonly entry: AgentEntry
  readonly token: HeldToken
  readonly hint: string
}

const limits = { audiences: 64, audience: 1024, token: 16 * 1024 } as const
/** milliseconds by which the clocks of two nodes may differ */
const leeway = 10_000
/** what is passed on of tokens of other trust domains: whatever else they say means nothing here */
const registered = new Set(['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti'])

export function badField(field: string, problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `${field}: ${problem}`, {
    fields: [{ field, problem }],
  })
}

/** Throws ERR_BAD_REQUEST. */
function audienceOf({ audience }: WantedTokens): readonly string[] {
  if (audience.length === 0) badField('audience', 'is missing')
  if (audience.length > limits.audiences) badField('audience', `more than ${limits.audiences}`)
  for (const [i, one] of audience.entries()) {
    if (one === '' || one.length > limits.audience)
      badField(`audience[${i}]`, `is not 1 to ${limits.audience} characters`)
  }
  return audience
}

/** The entries of one identity, or of all when it is empty (§6.2.1). */
export function entriesOf(id: string, entries: readonly AgentEntry[]): readonly AgentEntry[] {
  if (id === '') return entries
  if (!isSpiffeId(id)) badField('spiffe_id', 'is no SPIFFE ID')
  const wanted = entries.filter(({ spiffeId }) => spiffeId === id)
  if (wanted.length === 0) throw new IdentityError('ERR_NO_IDENTITY', 'no identity issued')
  return wanted
}

export interface JwtOptions {
  readonly knowledge: Knowledge
  readonly tokens: TokenCache
  readonly request: Session['requestJwt']
  readonly clock: Clock
}

/** The claims as JSON; of a foreign token only those that the standard knows. */
function claimsOf({ claims, id }: JwtSvid, own: TrustDomain): JsonObject {
  const isOwn = id.startsWith(`spiffe://${own}/`)
  const kept = Object.entries(claims).filter(([name]) => isOwn || registered.has(name))
  return JSON.parse(JSON.stringify(Object.fromEntries(kept)))
}

export type JwtProfile = ReturnType<typeof jwtProfile>

export function jwtProfile({ knowledge, tokens, request, clock }: JwtOptions) {
  const trustDomain = () => knowledge.bundle().trustDomain

  function tokenOf(entry: AgentEntry, audience: readonly string[]): Promise<HeldToken> {
    const mint = () => request({ entryId: entry.id, audience })
    return entry.hasUniqueTokens
      ? mint().then((made) => ({ ...made, receivedAt: clock.now() }))
      : tokens.get(tokenKey('jwt', entry, audience), mint)
  }

  async function tokensFor(
    wanted: WantedTokens,
    entries: readonly AgentEntry[],
  ): Promise<readonly EntryToken[]> {
    const audience = audienceOf(wanted)
    const hints = hintsOf(entries)
    const held = entriesOf(wanted.spiffeId, entries).map(async (entry) => {
      const token = await tokenOf(entry, audience)
      return { entry, token, hint: hints.get(entry.id) ?? '' }
    })
    return await Promise.all(held)
  }

  return {
    tokens: tokensFor,
    async svids(wanted: WantedTokens, entries: readonly AgentEntry[]) {
      const held = await tokensFor(wanted, entries)
      return {
        svids: held.map(({ entry, token, hint }) => ({
          ...{ spiffeId: entry.spiffeId, svid: token.token, hint },
        })),
      }
    },
    bundles(entries: readonly AgentEntry[]): Answer {
      const all = [[trustDomain(), knowledge.own()] as const, ...federatedWith(entries, knowledge)]
      const documents = all.map(([name, { jwt }]) => [name, jwksOf({ jwt })] as const)
      const encode = () => {
        const bundles = documents.map(([name, text]) => [`spiffe://${name}`, Buffer.from(text)])
        const message = create(JWTBundlesResponseSchema, { bundles: Object.fromEntries(bundles) })
        return toBinary(JWTBundlesResponseSchema, message)
      }
      return { version: `jwt ${JSON.stringify(documents)}`, encode }
    },
    async validate({ audience, svid }: ValidateJWTSVIDRequest, entries: readonly AgentEntry[]) {
      if (audience === '') badField('audience', 'is missing')
      if (svid === '') badField('svid', 'is missing')
      if (svid.length > limits.token) badField('svid', `is longer than ${limits.token} characters`)
      const foreign = new Map(federatedWith(entries, knowledge))
      const keys = (name: TrustDomain) =>
        name === trustDomain() ? knowledge.own().jwt : foreign.get(name)?.jwt
      // loaded here: an agent that starts has nothing to verify yet
      const { verifyJwtSvid } = await import('../../spiffe/jwt-svid.ts')
      const verified = await verifyJwtSvid(svid, {
        keys,
        audience,
        now: clock.now(),
        leeway,
      }).catch((error: unknown) => {
        if (!hasCode(error)) throw error
        return badField('svid', explain(error))
      })
      if (knowledge.isDenied(verified.id)) badField('svid', `${verified.id} is denied`)
      return { spiffeId: verified.id, claims: claimsOf(verified, trustDomain()) }
    },
  }
}

/** A JWK Set with keys of one kind only (§6.2.2, §7.2.2). */
export function jwksOf(keys: {
  readonly jwt?: readonly TokenKey[]
  readonly wit?: readonly TokenKey[]
}): string {
  const { jwt = [], wit = [] } = keys
  return formatBundleDocument({ x509: [], jwt, wit, sequence: undefined, refreshHint: undefined })
}

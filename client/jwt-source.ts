// JWT-SVIDs of this workload, and the verification of those of others, by the Workload API.
import { Code, createClient } from '@connectrpc/connect'
import { type JWTSVID, SpiffeWorkloadAPI } from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { systemClock } from '../runtime/clock.ts'
import type { TokenKey } from '../spiffe/bundle-document.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { parseSpiffeId, type SpiffeId, type TrustDomain, trustDomainOf } from '../spiffe/id.ts'
import { type Jws, readJws } from '../spiffe/jws.ts'
import { type JwtSvid, verifyJwtSvid } from '../spiffe/jwt-svid.ts'
import { expiryOf, issuedAtOf, subjectOf } from '../spiffe/token-claims.ts'
import type { Endpoint } from './endpoint.ts'
import { failureOf, notReady } from './failure.ts'
import type { Followed, SourceOptions } from './followed.ts'
import { jwtBundlesOf } from './jwt-bundles.ts'
import { untilAborted } from './signals.ts'
import { followStream } from './stream.ts'
import { createTokenCache } from './token-cache.ts'
import { openTransport, securityHeader } from './transport.ts'

/** The keys that verify tokens, by trust domain. */
export type JwtBundles = ReadonlyMap<TrustDomain, readonly TokenKey[]>

/** A token of this workload: for the `authorization` header of a request to its audience, for no log. */
export interface OwnJwtSvid extends JwtSvid {
  readonly hint: string
  /** without the token */
  toJSON(): unknown
}

export interface WaitOptions {
  readonly signal?: AbortSignal
}

export interface FetchTokenOptions extends WaitOptions {
  /** of which identity; of the default one when left out */
  readonly id?: SpiffeId
}

export interface VerifyTokenOptions extends WaitOptions {
  /** milliseconds by which clocks may differ, at most a minute */
  readonly leeway?: number
}

/** What a valid token says. */
export interface ValidatedToken {
  readonly id: SpiffeId
  readonly claims: Readonly<Record<string, unknown>>
}

/** `current()` and `subscribe()` give the keys of each trust domain. */
export interface JwtSource extends Followed<JwtBundles> {
  /**
   * A token for `audience`: the same one until half of its life is over, and the last good one for as long
   * as it lives when no other can be had. Rejects with ERR_NO_IDENTITY or ERR_UNAVAILABLE.
   */
  fetch(audience: string | readonly string[], options?: FetchTokenOptions): Promise<OwnJwtSvid>
  /** Asks the agent, which knows of more than keys. Rejects with ERR_UNTRUSTED when the token is not valid. */
  validate(token: string, audience: string, options?: WaitOptions): Promise<ValidatedToken>
  /** Verifies in this process, without the agent. Rejects with ERR_UNTRUSTED when the token is not valid. */
  verify(token: string, audience: string, options?: VerifyTokenOptions): Promise<JwtSvid>
}

/** milliseconds that one call may take */
const patience = 10_000
const never = new AbortController().signal

function audienceOf(jws: Jws): readonly string[] {
  const { aud } = jws.payload
  return (Array.isArray(aud) ? aud : [aud]).map(String)
}

/** Reads what the agent says is ours. Throws ERR_UNTRUSTED when it is of another, or for others. */
function ownSvidOf(
  { spiffeId, svid: token, hint }: JWTSVID,
  wanted: readonly string[],
  now: number,
): OwnJwtSvid {
  const jws = readJws(token)
  const id = subjectOf(jws)
  if (id !== parseSpiffeId(spiffeId)) {
    throw new IdentityError('ERR_UNTRUSTED', `the token of ${spiffeId} names ${id}`)
  }
  const audience = audienceOf(jws)
  const missing = wanted.find((it) => !audience.includes(it))
  if (missing !== undefined) {
    throw new IdentityError('ERR_UNTRUSTED', `the token of ${id} is not for ${missing}`)
  }
  const expiresAt = expiryOf(jws, { now, leeway: 0 })
  const said = { id, audience, expiresAt, issuedAt: issuedAtOf(jws), claims: jws.payload, hint }
  return { ...said, token, toJSON: () => said }
}

/** Whether the key that signed `svid` is still in the bundle; a bundle not seen yet says nothing. */
function isKnown({ id, token }: JwtSvid, bundles: JwtBundles | undefined): boolean {
  const { kid } = readJws(token).header
  const keys = bundles?.get(trustDomainOf(id))
  return kid === undefined || keys === undefined || keys.some(({ keyId }) => keyId === kid)
}

/** Follows FetchJWTBundles for as long as it lives; tokens are fetched when they are asked for. */
export function startJwtSource(endpoint: Endpoint, options: SourceOptions = {}): JwtSource {
  const { clock = systemClock } = options
  const bundles = followStream(
    endpoint,
    { open: (client, signal) => client.fetchJWTBundles({}, signal), read: jwtBundlesOf },
    options,
  )
  const local = openTransport(endpoint, { interceptors: [securityHeader] })
  const client = createClient(SpiffeWorkloadAPI, local.transport)
  const stop = new AbortController()
  const limited = (signal = never) => ({
    signal: AbortSignal.any([stop.signal, signal, AbortSignal.timeout(patience)]),
  })
  const cache = createTokenCache<OwnJwtSvid>(clock, (svid) => isKnown(svid, bundles.current()))
  const subscription = bundles.subscribe((state) => {
    if (state === undefined) cache.clear()
  })

  async function mint(audience: readonly string[], spiffeId: string): Promise<OwnJwtSvid> {
    try {
      const request = { audience: [...audience], spiffeId }
      const { svids } = await client.fetchJWTSVID(request, limited())
      const [first] = svids
      if (first === undefined) throw new IdentityError('ERR_NO_IDENTITY', 'an answer without token')
      if (spiffeId !== '' && first.spiffeId !== spiffeId) {
        throw new IdentityError('ERR_UNTRUSTED', `a token of ${first.spiffeId}, not of ${spiffeId}`)
      }
      return ownSvidOf(first, audience, clock.now())
    } catch (error) {
      throw failureOf(error)
    }
  }

  return {
    ...bundles,
    async fetch(audience, { id = '', signal = never } = {}) {
      const all = [...new Set([audience].flat())].sort()
      if (all.length === 0 || all.includes(''))
        throw new IdentityError('ERR_BAD_REQUEST', 'audience: has to name who the token is for')
      const token = cache.get(JSON.stringify([id, all]), () => mint(all, id))
      return await untilAborted(token, signal)
    },
    async validate(token, audience, { signal } = {}) {
      try {
        const said = await client.validateJWTSVID({ svid: token, audience }, limited(signal))
        return { id: parseSpiffeId(said.spiffeId), claims: said.claims ?? {} }
      } catch (error) {
        signal?.throwIfAborted()
        throw failureOf(error, (status) =>
          status === Code.InvalidArgument ? 'ERR_UNTRUSTED' : undefined,
        )
      }
    },
    async verify(token, audience, { signal, leeway = 0 } = {}) {
      await bundles.ready(limited(signal).signal).catch((error: unknown) => {
        signal?.throwIfAborted()
        throw notReady(bundles, error)
      })
      const known = bundles.current()
      if (known === undefined) {
        throw new IdentityError('ERR_NO_IDENTITY', 'this side has no keys at present')
      }
      const keys = known.get.bind(known)
      return await verifyJwtSvid(token, { keys, audience, now: clock.now(), leeway })
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('the source was disposed'))
      subscription[Symbol.dispose]()
      local[Symbol.dispose]()
      await bundles[Symbol.asyncDispose]()
    },
  }
}

// Material for sets that a workload writes for itself: what the Workload API gives to this process.

import type { Endpoint } from '../../client/endpoint.ts'
import { failureOf } from '../../client/failure.ts'
import { startJwtSource } from '../../client/jwt-source.ts'
import { type OwnSvid, startX509Source, type X509Context } from '../../client/x509-source.ts'
import type { Clock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import type { X509Bundle } from '../../spiffe/bundle.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { type TrustDomain, trustDomainOf } from '../../spiffe/id.ts'
import type { FileSet } from './config.ts'
import { plainJwks } from './jwks.ts'
import { audienceKey, type MaterialSource, type Want } from './material.ts'

export interface WorkloadApiOptions {
  readonly sets: readonly FileSet[]
  readonly clock: Clock
}

export type WorkloadApiMaterial = MaterialSource & AsyncDisposable

/** milliseconds until what could not be had is asked for again */
const retry = 10_000

function svidOf({ svids }: X509Context, { id, hint }: Want): OwnSvid {
  const svid = svids.find(
    (it) => (id === undefined || it.id === id) && (hint === undefined || it.hint === hint),
  )
  if (svid !== undefined) return svid
  const wanted = [
    ...(id === undefined ? [] : [id]),
    ...(hint === undefined ? [] : [`hint ${hint}`]),
  ]
  const own = svids.map((it) => it.id).join(', ')
  const message = `${wanted.join(' with ')} is not given to this process; it is ${own}`
  throw new IdentityError('ERR_NO_IDENTITY', message)
}

/** The one of that trust domain first. Throws ERR_UNAVAILABLE when it is not there. */
function bundlesFor(
  trustDomain: TrustDomain,
  bundles: readonly X509Bundle[],
): [X509Bundle, ...X509Bundle[]] {
  const own = bundles.find((it) => it.trustDomain === trustDomain)
  if (own === undefined)
    throw new IdentityError('ERR_UNAVAILABLE', `there is no bundle of ${trustDomain}`)
  return [own, ...bundles.filter((it) => it !== own)]
}

/** A token is asked for again at half of what is left; the source knows whether it is time for another. */
function halfOf(expiresAt: number, now: number): number {
  return now + Math.max((expiresAt - now) / 2, 1000)
}

type Jwt = ReturnType<typeof startJwtSource> | undefined
type Waiting = { readonly clock: Clock; readonly signal: AbortSignal }

async function tokensOf(jwt: Jwt, { id }: OwnSvid, want: Want, { clock, signal }: Waiting) {
  const tokens = new Map<string, string>()
  const lacking: string[] = []
  let until = Number.POSITIVE_INFINITY
  for (const audience of want.audiences) {
    try {
      const svid = await jwt?.fetch(audience, { id, signal })
      if (svid === undefined) continue
      tokens.set(audienceKey(audience), svid.token)
      until = Math.min(until, halfOf(svid.expiresAt, clock.now()))
    } catch (error) {
      signal.throwIfAborted()
      lacking.push(`no token for ${audience.join(', ')}: ${explain(error)}`)
      until = Math.min(until, clock.now() + retry)
    }
  }
  return { tokens, lacking, until }
}

function jwksOf(jwt: Jwt, { wantsJwks }: Want): ReadonlyMap<TrustDomain, string> {
  const known = wantsJwks ? jwt?.current() : undefined
  return new Map([...(known ?? [])].map(([name, keys]) => [name, plainJwks(keys)]))
}

/** Follows the Workload API for as long as it lives; tokens only where a set wants some. */
export function startWorkloadApiMaterial(
  endpoint: Endpoint,
  { sets, clock }: WorkloadApiOptions,
): WorkloadApiMaterial {
  const stack = new AsyncDisposableStack()
  const changed = createTopic<void>()
  let trouble: IdentityError | undefined

  function onTrouble(error: unknown): void {
    const { code, message } = failureOf(error)
    const isNews = message !== trouble?.message
    // without its cause, which says the same
    trouble = new IdentityError(code, message)
    if (isNews) changed.publish()
  }

  const x509 = stack.use(startX509Source(endpoint, { clock, onTrouble }))
  stack.use(x509.subscribe(() => changed.publish()))
  const wantsJwt = sets.some(({ files }) => files.some(({ holds }) => holds.startsWith('jwt')))
  const jwt = wantsJwt ? stack.use(startJwtSource(endpoint, { clock })) : undefined
  if (jwt !== undefined) stack.use(jwt.subscribe(() => changed.publish()))

  return {
    async now(want, { signal }) {
      const context = x509.current()
      if (context === undefined)
        throw trouble ?? new IdentityError('ERR_UNAVAILABLE', 'no answer of the agent yet')
      const svid = svidOf(context, want)
      const bundles = bundlesFor(trustDomainOf(svid.id), x509.bundles())
      const tokens = await tokensOf(jwt, svid, want, { clock, signal })
      const { id, chain, notAfter } = svid
      const key = svid.key.export({ format: 'der', type: 'pkcs8' })
      return { id, chain, key, notAfter, bundles, ...tokens, jwks: jwksOf(jwt, want) }
    },
    onChange: (listener) => changed.subscribe(listener),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

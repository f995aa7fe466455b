// Material for sets that the agent itself writes: by SPIFFE ID, from what it holds. Nobody is attested here: who
// may edit agent.yaml says who can read the files.
import type { X509Bundle } from '../../spiffe/bundle.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import type { TrustDomain } from '../../spiffe/id.ts'
import type { Core } from '../core.ts'
import type { AgentEntry } from '../entries.ts'
import { tokenKey } from '../token-svids.ts'
import { withoutDenied } from '../trust.ts'
import { federatedWith } from '../workload-api/entitled.ts'
import { earliest } from '../xds/resource.ts'
import { plainJwks } from './jwks.ts'
import { audienceKey, type Material, type MaterialSource, type Want } from './material.ts'

export interface AgentHoldings extends Pick<Core, 'knowledge'> {
  readonly cache: Pick<Core['cache'], 'svids' | 'want' | 'onChange'>
  readonly tokens: Pick<Core['tokens'], 'get' | 'dueAt'>
  readonly session: Pick<Core['session'], 'requestJwt'>
  readonly clock: Pick<Core['clock'], 'now'>
}

/** milliseconds until what could not be had is asked for again */
const retryTokens = 10_000

function unavailable(message: string): never {
  throw new IdentityError('ERR_UNAVAILABLE', message)
}

/** The oldest entry of that ID. Throws ERR_UNAVAILABLE, ERR_NO_IDENTITY. */
function entryOf({ id, hint }: Want, { knowledge }: AgentHoldings): AgentEntry {
  if (!knowledge.isComplete()) unavailable('the agent has not heard from its authority yet')
  const refuse = (why: string): never => {
    throw new IdentityError('ERR_NO_IDENTITY', `${id} ${why}`)
  }
  const [entry] = [...knowledge.entries.values()]
    .filter(({ spiffeId, ...it }) => spiffeId === id && (hint === undefined || it.hint === hint))
    .sort((a, b) => Number(a.createdAt - b.createdAt) || (a.id < b.id ? -1 : 1))
  if (entry === undefined) return refuse('is in no registration entry of this node')
  if (entry.isPrivileged) refuse('is of an administrator or an authority: it is never written')
  if (knowledge.isDenied(entry.spiffeId)) refuse('is on the deny-list')
  return entry
}

/** Tokens by audience, and what to do about those that are not there. */
async function tokensOf(entry: AgentEntry, { audiences }: Want, holdings: AgentHoldings) {
  const { tokens: cache, session, clock } = holdings
  const tokens = new Map<string, string>()
  const lacking: string[] = []
  let until = Number.POSITIVE_INFINITY
  for (const audience of audiences) {
    const shared = tokenKey('jwt', entry, audience)
    // tokens of such an entry are never shared, and each file keeps its own until it is due
    const key = entry.hasUniqueTokens ? `file ${shared}` : shared
    try {
      const held = await cache.get(key, () => session.requestJwt({ entryId: entry.id, audience }))
      const due = cache.dueAt(held)
      until = Math.min(until, due > clock.now() ? due : clock.now() + retryTokens)
      tokens.set(audienceKey(audience), held.token)
    } catch (error) {
      until = Math.min(until, clock.now() + retryTokens)
      lacking.push(`no token for ${audience.join(', ')}: ${explain(error)}`)
    }
  }
  return { tokens, lacking, until }
}

/** Programs that read files look at no deny-list: a root on it is in none. Throws ERR_UNAVAILABLE. */
function bundlesOf(entry: AgentEntry, { knowledge, clock }: AgentHoldings) {
  const { denyList } = knowledge.revocation()
  const rooted = (bundle: X509Bundle) => withoutDenied(bundle, denyList, clock.now())
  const own = rooted(knowledge.bundle())
  const others = federatedWith([entry], knowledge).map(([, { x509 }]) => rooted(x509))
  if (own.bundle.authorities.length === 0)
    unavailable(`every root of ${own.bundle.trustDomain} is on the deny-list`)
  const federated = others.filter(({ bundle }) => bundle.authorities.length > 0)
  const bundles: Material['bundles'] = [own.bundle, ...federated.map(({ bundle }) => bundle)]
  return { bundles, until: earliest(own.until, ...others.map(({ until }) => until)) }
}

export function materialOfAgent(holdings: AgentHoldings): MaterialSource {
  const { knowledge, cache } = holdings

  function jwksFor(entry: AgentEntry): ReadonlyMap<TrustDomain, string> {
    const own = [knowledge.bundle().trustDomain, knowledge.own()] as const
    const all = [own, ...federatedWith([entry], knowledge)]
    return new Map(all.map(([name, { jwt }]) => [name, plainJwks(jwt)]))
  }

  return {
    async now(want) {
      const entry = entryOf(want, holdings)
      const svid = cache.svids.get(entry.id)
      if (svid === undefined) {
        cache.want(entry)
        return unavailable(`the SVID of ${entry.spiffeId} is not made yet`)
      }
      const { id, certificates: chain, key, notAfter } = svid
      const tokens = await tokensOf(entry, want, holdings)
      const { bundles, until = Number.POSITIVE_INFINITY } = bundlesOf(entry, holdings)
      return {
        ...{ id, chain, key, notAfter, ...tokens, bundles },
        until: Math.min(tokens.until, until),
        jwks: want.wantsJwks ? jwksFor(entry) : new Map(),
      }
    },
    onChange(listener) {
      const stack = new DisposableStack()
      stack.use(knowledge.onChange(listener))
      stack.use(cache.onChange(listener))
      return stack
    },
  }
}

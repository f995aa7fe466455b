// Whom proxies believe now: the roots that are not denied, and the lists that go along with them. Proxies look at no
// deny-list, and a CRL says nothing of who has signed.
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import { keyIdOf } from '../../spiffe/key-id.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Trust } from '../trust.ts'
import { type CrlSet, crlsOf } from './crls.ts'
import { earliest } from './resource.ts'
import type { Believed } from './validation.ts'

export interface BelievedOptions {
  readonly knowledge: Pick<Knowledge, 'own' | 'revocation'>
  readonly clock: Pick<Clock, 'now'>
  readonly log: Log
}

interface Rooted {
  readonly trust: Trust
  /** milliseconds since the epoch: a rule against one of its roots ends then */
  readonly until?: number | undefined
}

/** The lists that go along with roots; says once when some are missing. */
function createLists({ knowledge, clock, log }: BelievedOptions): (trust: Trust) => CrlSet {
  let told = ''
  return (trust) => {
    const set = crlsOf(trust, knowledge.revocation().crls, clock.now())
    const problem = set.problem ?? ''
    if (problem !== told && problem !== '') log.warn({ problem }, 'proxies get no CRLs')
    told = problem
    return set
  }
}

function withoutDenied(trust: Trust, { knowledge, clock }: BelievedOptions): Rooted {
  const { denyList } = knowledge.revocation()
  const { authorities } = trust.x509
  const rules = authorities.map(({ publicKey }) =>
    denyList.againstAuthority(keyIdOf(publicKey).toString('hex'), clock.now()),
  )
  const held = rules.filter((it) => it !== undefined)
  if (held.length === 0) return { trust }
  const x509 = { ...trust.x509, authorities: authorities.filter((_, i) => rules[i] === undefined) }
  const ends = held.flatMap(({ expiresAt }) => (expiresAt === 0 ? [] : [expiresAt]))
  return { trust: { ...trust, x509 }, until: earliest(...ends) }
}

/** Those of `trusts` that have a root: without any a proxy would refuse the whole context. */
export function createBelieved(options: BelievedOptions) {
  const { knowledge } = options
  const listsOf = createLists(options)
  return (trusts: readonly Trust[]) => {
    const rooted = trusts.map((it) => ({
      ...withoutDenied(it, options),
      isOwn: it === knowledge.own(),
    }))
    const all = rooted
      .filter(({ trust }) => trust.x509.authorities.length > 0)
      // the lists are those of our own authorities
      .map(({ trust, isOwn }): Believed => ({ trust, crls: isOwn ? listsOf(trust) : { crls: [] } }))
    const ends = [...rooted.map(({ until }) => until), ...all.map(({ crls }) => crls.until)]
    return { all, until: earliest(...ends) }
  }
}

// Whom proxies believe now: the roots that are not denied, and the lists that go along with them. Proxies look at no
// deny-list, and a CRL says nothing of who has signed.
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Knowledge } from '../knowledge.ts'
import { type Trust, withoutDenied } from '../trust.ts'
import { type CrlSet, crlsOf } from './crls.ts'
import { earliest } from './resource.ts'
import type { Believed } from './validation.ts'

export interface BelievedOptions {
  readonly knowledge: Pick<Knowledge, 'own' | 'revocation'>
  readonly clock: Pick<Clock, 'now'>
  readonly log: Log
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

/** Those of `trusts` that have a root: without any a proxy would refuse the whole context. */
export function createBelieved(options: BelievedOptions) {
  const { knowledge, clock } = options
  const listsOf = createLists(options)
  return (trusts: readonly Trust[]) => {
    const { denyList } = knowledge.revocation()
    const rooted = trusts.map((it) => {
      const { bundle: x509, until } = withoutDenied(it.x509, denyList, clock.now())
      return { trust: { ...it, x509 }, until, isOwn: it === knowledge.own() }
    })
    const all = rooted
      .filter(({ trust }) => trust.x509.authorities.length > 0)
      // the lists are those of our own authorities
      .map(({ trust, isOwn }): Believed => ({ trust, crls: isOwn ? listsOf(trust) : { crls: [] } }))
    const ends = [...rooted.map(({ until }) => until), ...all.map(({ crls }) => crls.until)]
    return { all, until: earliest(...ends) }
  }
}

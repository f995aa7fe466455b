// What is believed no more, as agents get it: the deny-list, and CRLs made of it. A CRL names serials
// only, so those of a denied identity are looked up; an authority is beyond what it can say.
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import type { Serial } from '../spiffe/certificate.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Authorities, Authority } from './authorities/authorities.ts'
import { signCrl } from './crl.ts'
import type { Registry } from './registry.ts'
import type { DenyRuleRow, IssuanceTable } from './store/store.ts'

export interface Revocation {
  /** One for each X.509 authority, since a verifier wants one from every issuer; none without rules. */
  crls(): readonly Uint8Array[]
  /** Tells the listeners when a rule has ended, or the lists have half of their life behind them. */
  refresh(): void
  /** Called when there are other lists than before though no rule changed. */
  onChange(listener: () => void): Disposable
}

export interface RevocationOptions {
  readonly registry: Registry
  readonly authorities: Authorities
  readonly issued: Pick<IssuanceTable, 'find' | 'validOf'>
  readonly clock: Pick<Clock, 'now'>
}

const life = 24 * 3_600_000
const backdate = 60_000
interface Revoked {
  readonly serial: Serial
  readonly authorityId: string
  /** milliseconds since the epoch */
  readonly at: number
}

interface Made {
  readonly rules: readonly DenyRuleRow[]
  readonly authorities: string
  /** when something in them ends, or half their life has passed */
  readonly until: number
  readonly number: number
  readonly crls: readonly Uint8Array[]
}

export function createRevocation(options: RevocationOptions): Revocation {
  const { registry, authorities, issued, clock } = options
  const topic = createTopic<void>()
  let made: Made | undefined

  /** Serials that are valid and denied, with the moment since which they are. */
  function revokedBy(alive: readonly DenyRuleRow[], now: number): Revoked[] {
    const since = new Map<SpiffeId, number>()
    const found = new Map<Serial, Revoked>()
    for (const { target, createdAt: at } of alive) {
      if (target.kind === 'id') since.set(target.id, at)
      if (target.kind !== 'serial') continue
      const [row] = issued.find({ serial: target.serial, limit: 1 })
      if (row !== undefined && row.notAfter > now) found.set(row.serial, { ...row, at })
    }
    const ofIds = since.size === 0 ? [] : issued.validOf(new Set(since.keys()), now)
    for (const row of ofIds) found.set(row.serial, { ...row, at: since.get(row.spiffeId) ?? now })
    return [...found.values()]
  }

  function signFor(
    authority: Authority,
    revoked: readonly Revoked[],
    { now, number }: { now: number; number: number },
  ): Uint8Array {
    const own = revoked.filter(({ authorityId }) => authorityId === authority.id)
    return signCrl(
      {
        issuer: authority.certificate.subject,
        authorityKeyId: authority.keyId,
        number,
        thisUpdate: now - backdate,
        nextUpdate: now + life,
        revoked: own,
      },
      authority.key,
    )
  }

  function make(): Made {
    const rules = registry.denyRules()
    const now = clock.now()
    const alive = rules.filter(({ expiresAt }) => expiresAt === 0 || now < expiresAt)
    const ends = alive.flatMap(({ expiresAt }) => (expiresAt === 0 ? [] : [expiresAt]))
    const until = Math.min(now + life / 2, ...ends)
    // also when the clock was set back
    const number = Math.max(now, (made?.number ?? 0) + 1)
    const revoked = revokedBy(alive, now)
    const crls =
      alive.length === 0
        ? []
        : authorities.all().map((authority) => signFor(authority, revoked, { now, number }))
    return { rules, authorities: signers(), until, number, crls }
  }

  const signers = () =>
    authorities
      .all()
      .map(({ id }) => id)
      .join()
  const isOld = () => made !== undefined && clock.now() >= made.until

  return {
    crls() {
      const rules = registry.denyRules()
      const known = made?.rules === rules && made.authorities === signers() && !isOld()
      if (made === undefined || !known) made = make()
      return made.crls
    },
    refresh() {
      if (made === undefined) made = make()
      else if (isOld()) topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

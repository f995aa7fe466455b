// What is believed no more, as agents get it: the deny-list, and CRLs made of it. A CRL names serials
// only, so those of a denied identity are looked up; an authority is beyond what it can say.
import type { Clock } from '../runtime/clock.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import type { Authorities, Authority } from './authorities/authorities.ts'
import { signCrl } from './crl.ts'
import type { Registry } from './registry.ts'
import type { DenyRuleRow, IssuanceTable, IssuedRow } from './store/store.ts'

export interface Revocation {
  /** One for each X.509 authority, since a verifier wants one from every issuer; none without rules. */
  crls(): readonly Uint8Array[]
  /** Tells the listeners when the lists have half of their life behind them. */
  refresh(): void
  /** Called when there are other lists than before though no rule changed. */
  onChange(listener: () => void): Disposable
}

export interface RevocationOptions {
  readonly registry: Registry
  readonly authorities: Authorities
  readonly issued: Pick<IssuanceTable, 'find'>
  readonly clock: Pick<Clock, 'now'>
}

const life = 24 * 3_600_000
const backdate = 60_000
/** of one identity that are valid at once */
const mostCertificates = 1000

interface Made {
  readonly rules: readonly DenyRuleRow[]
  readonly authorities: string
  readonly at: number
  readonly crls: readonly Uint8Array[]
}

export function createRevocation(options: RevocationOptions): Revocation {
  const { registry, authorities, issued, clock } = options
  const topic = createTopic<void>()
  let made: Made | undefined

  function certificatesOf({ target }: DenyRuleRow): IssuedRow[] {
    switch (target.kind) {
      case 'serial':
        return issued.find({ serial: target.serial, limit: 1 })
      case 'id':
        return issued.find({ spiffeId: target.id, limit: mostCertificates })
      case 'authority':
        return []
    }
  }

  function signFor(
    authority: Authority,
    revoked: ReadonlyMap<IssuedRow['serial'], { row: IssuedRow; at: number }>,
    now: number,
  ): Uint8Array {
    const own = [...revoked.values()].filter(({ row }) => row.authorityId === authority.id)
    return signCrl(
      {
        issuer: authority.certificate.subject,
        authorityKeyId: authority.keyId,
        number: now,
        thisUpdate: now - backdate,
        nextUpdate: now + life,
        revoked: own.map(({ row, at }) => ({ serial: row.serial, at })),
      },
      authority.key,
    )
  }

  function make(rules: readonly DenyRuleRow[], now: number): readonly Uint8Array[] {
    const alive = rules.filter(({ expiresAt }) => expiresAt === 0 || now < expiresAt)
    if (alive.length === 0) return []
    const revoked = new Map<IssuedRow['serial'], { row: IssuedRow; at: number }>()
    for (const rule of alive) {
      for (const row of certificatesOf(rule)) {
        if (row.notAfter > now) revoked.set(row.serial, { row, at: rule.createdAt })
      }
    }
    return authorities.all().map((authority) => signFor(authority, revoked, now))
  }

  const signers = () =>
    authorities
      .all()
      .map(({ id }) => id)
      .join()
  const isOld = () => made !== undefined && clock.now() - made.at > life / 2

  return {
    crls() {
      const rules = registry.denyRules()
      const known = made?.rules === rules && made.authorities === signers() && !isOld()
      if (made === undefined || !known) {
        const at = clock.now()
        made = { rules, authorities: signers(), at, crls: make(rules, at) }
      }
      return made.crls
    },
    refresh() {
      if (isOld()) topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

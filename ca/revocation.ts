// What is believed no more, as agents get it: the deny-list, and CRLs made of it. A CRL names serials
// only, so those of a denied identity are looked up; an authority is beyond what it can say.
import type { Clock } from '../runtime/clock.ts'
import { createTopic, createTurns } from '../runtime/lifecycle.ts'
import type { Serial } from '../spiffe/certificate.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Authorities, Authority } from './authorities/authorities.ts'
import { canSign, type Signing } from './authorities/slot.ts'
import { signCrl } from './crl.ts'
import type { Registry } from './registry.ts'
import type { DenyRuleRow } from './store/model.ts'
import type { DenyTable, IssuanceTable } from './store/store.ts'

export interface Revocation {
  /** One for each X.509 authority of a replica, since a verifier wants one from every issuer; none without rules. */
  crls(): Promise<readonly Uint8Array[]>
  /** Makes new lists, and tells the listeners, when these are not what they should be any more. */
  refresh(): Promise<void>
  /** Called when there are other lists than before though no rule changed. */
  onChange(listener: () => void): Disposable
}

export interface RevocationOptions {
  readonly registry: Registry
  readonly authorities: Authorities
  readonly issued: Pick<IssuanceTable, 'find' | 'validOf'>
  /** where the replicas leave each other theirs */
  readonly shared: Pick<DenyTable, 'crls' | 'putCrls'>
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

interface Moment {
  readonly now: number
  readonly number: number
}

function signFor(
  authority: Signing<Authority>,
  revoked: readonly Revoked[],
  { now, number }: Moment,
): Uint8Array {
  return signCrl(
    {
      issuer: authority.certificate.subject,
      authorityKeyId: authority.keyId,
      number,
      thisUpdate: now - backdate,
      nextUpdate: now + life,
      revoked: revoked.filter(({ authorityId }) => authorityId === authority.id),
    },
    authority.key,
  )
}

export function createRevocation(options: RevocationOptions): Revocation {
  const { registry, authorities, issued, shared, clock } = options
  const topic = createTopic<void>()
  const inTurn = createTurns()
  let made: Made | undefined

  /** Serials that are valid and denied, with the moment since which they are. */
  async function revokedBy(alive: readonly DenyRuleRow[], now: number): Promise<Revoked[]> {
    const since = new Map<SpiffeId, number>()
    const found = new Map<Serial, Revoked>()
    for (const { target, createdAt: at } of alive) {
      if (target.kind === 'id') since.set(target.id, at)
      if (target.kind !== 'serial') continue
      const row = await issued.find(target.serial)
      if (row !== undefined && row.notAfter > now) found.set(row.serial, { ...row, at })
    }
    const ofIds = since.size === 0 ? [] : await issued.validOf(new Set(since.keys()), now)
    for (const row of ofIds) found.set(row.serial, { ...row, at: since.get(row.spiffeId) ?? now })
    return [...found.values()]
  }

  const signers = () =>
    authorities
      .own()
      .map(({ id }) => id)
      .join()
  const isOld = (of: Made) => clock.now() >= of.until

  async function make(): Promise<Made> {
    const rules = registry.denyRules()
    const now = clock.now()
    const alive = rules.filter(({ expiresAt }) => expiresAt === 0 || now < expiresAt)
    const ends = alive.flatMap(({ expiresAt }) => (expiresAt === 0 ? [] : [expiresAt]))
    // also when the clock was set back
    const number = Math.max(now, (made?.number ?? 0) + 1)
    const names = signers()
    const own = alive.length === 0 ? [] : authorities.own().filter(canSign)
    const revoked = await revokedBy(alive, now)
    const lists = own.map((it) => ({
      authorityId: it.id,
      crl: signFor(it, revoked, { now, number }),
    }))
    if (authorities.all().length > authorities.own().length) await shared.putCrls(lists)
    const crls = lists.map(({ crl }) => crl)
    return { rules, authorities: names, until: Math.min(now + life / 2, ...ends), number, crls }
  }

  function isCurrent(of: Made): boolean {
    return of.rules === registry.denyRules() && of.authorities === signers() && !isOld(of)
  }

  /** Those of this replica's authorities. */
  const ownCrls = () =>
    inTurn(async () => {
      if (made === undefined || !isCurrent(made)) made = await make()
      return made.crls
    })

  return {
    async crls() {
      const own = await ownCrls()
      if (own.length === 0) return own
      const others = new Set(authorities.all().map(({ id }) => id))
      for (const { id } of authorities.own()) others.delete(id)
      if (others.size === 0) return own
      const lists = await shared.crls()
      const foreign = lists.filter(({ authorityId }) => others.has(authorityId))
      return [...own, ...foreign.map(({ crl }) => crl)]
    },
    async refresh() {
      if (made !== undefined && isCurrent(made)) return
      await ownCrls()
      topic.publish()
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

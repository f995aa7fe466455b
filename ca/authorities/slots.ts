// The X.509 authorities: one active signer, perhaps one prepared, old ones until they expire; all of
// them in the bundle. Renewed by time: prepared at half of the active one's life, activated at 5/6.
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { bundleOf, type X509Bundle } from '../../spiffe/bundle.ts'
import { type Certificate, parseCertificate } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { TrustDomain } from '../../spiffe/id.ts'
import { keyIdOf } from '../profile.ts'
import type { AuthorityRow, AuthorityState, AuthorityTable } from '../store/store.ts'
import type { KeyFolder } from './keys.ts'

export interface Authority {
  /** lower-case hex of the subject key identifier */
  readonly id: string
  readonly keyId: Uint8Array
  readonly certificate: Certificate
  readonly key: KeyObject
  readonly state: AuthorityState
  /** milliseconds since the epoch */
  readonly preparedAt: number
}

export interface Authorities {
  /** The signer. Throws ERR_UNAVAILABLE when there is none that is valid. */
  active(): Authority
  all(): readonly Authority[]
  bundle(): X509Bundle
  /** Grows with each change of the bundle, over restarts too. */
  readonly sequence: number
  /** Does what is due: prepare, activate, forget what has expired. Says what it did. */
  advance(): Promise<readonly string[]>
  /** Called after each change. */
  onChange(listener: () => void): Disposable
}

export interface AuthoritiesOptions {
  readonly trustDomain: TrustDomain
  readonly table: AuthorityTable
  readonly keys: KeyFolder
  readonly clock: Clock
  /** milliseconds that a new authority lives */
  readonly lifetime: number
}

const backdate = 60_000

/** How much of its life an authority has behind it, from 0 to 1. */
function ageOf({ certificate: { notBefore, notAfter } }: Authority, now: number): number {
  return (now - notBefore) / (notAfter - notBefore)
}

function rowOf({ id, state, certificate, preparedAt }: Authority): AuthorityRow {
  return { id, state, certificate: certificate.der, preparedAt }
}

/** What is due now, as the new list and a word for the log; undefined when nothing is. */
function due(
  all: readonly Authority[],
  now: number,
): { list: Authority[]; what: string } | undefined {
  const living = all.filter((it) => it.state === 'active' || now <= it.certificate.notAfter)
  if (living.length < all.length) return { list: living, what: 'forgot an expired authority' }
  const active = all.find((it) => it.state === 'active')
  const next = all.find((it) => it.state === 'prepared')
  if (active === undefined || next === undefined || ageOf(active, now) < 5 / 6) return undefined
  // one that was prepared late still gets a while to be known, unless the active one is about to end
  const known =
    now - next.preparedAt >= (active.certificate.notAfter - active.certificate.notBefore) / 12
  if (!known && ageOf(active, now) < 0.95) return undefined
  const list = all.map((it): Authority => {
    if (it === next) return { ...it, state: 'active' }
    return it === active ? { ...it, state: 'old' } : it
  })
  return { list, what: 'activated the prepared authority' }
}

/** Loads the authorities of the store; makes and activates the first one when there is none. */
export async function openAuthorities(options: AuthoritiesOptions): Promise<Authorities> {
  const { trustDomain, table, keys, clock, lifetime } = options
  const topic = createTopic<void>()
  let all: readonly Authority[] = table.list().map((row) => {
    const certificate = parseCertificate(row.certificate)
    return { ...row, certificate, keyId: keyIdOf(certificate.publicKey), key: keys.load(row.id) }
  })
  keys.keepOnly(all.map((it) => it.id))
  let bundle = bundleOf(
    trustDomain,
    all.map((it) => it.certificate.der),
  )
  let sequence = table.sequence()

  async function become(list: readonly Authority[]): Promise<void> {
    const removed = all.filter((it) => !list.some((kept) => kept.id === it.id)).map((it) => it.id)
    sequence = await table.set(list.map(rowOf), removed)
    all = list
    bundle = bundleOf(
      trustDomain,
      list.map((it) => it.certificate.der),
    )
    keys.keepOnly(list.map((it) => it.id))
    topic.publish()
  }

  /** The key is on disk before the row that speaks of it. */
  async function prepare(state: AuthorityState): Promise<void> {
    const now = clock.now()
    // loaded when needed: @peculiar/x509 would be a third of the time that a start takes
    const { createAuthority } = await import('../x509.ts')
    const made = await createAuthority({
      trustDomain,
      notBefore: now - backdate,
      notAfter: now + lifetime,
    })
    const certificate = parseCertificate(made.certificate)
    const keyId = keyIdOf(certificate.publicKey)
    const id = keyId.toString('hex')
    keys.save(id, made.key)
    await become([...all, { id, keyId, certificate, key: made.key, state, preparedAt: now }])
  }

  if (all.length === 0) await prepare('active')

  return {
    active() {
      const active = all.find((it) => it.state === 'active')
      if (active === undefined || clock.now() > active.certificate.notAfter) {
        throw new IdentityError('ERR_UNAVAILABLE', 'no authority is active and valid', {
          retryAfter: 5000,
        })
      }
      return active
    },
    all: () => all,
    bundle: () => bundle,
    get sequence() {
      return sequence
    },
    async advance() {
      const done: string[] = []
      const active = all.find((it) => it.state === 'active')
      const isNextDue = active === undefined || ageOf(active, clock.now()) >= 1 / 2
      if (isNextDue && !all.some((it) => it.state === 'prepared')) {
        await prepare('prepared')
        done.push('prepared a new authority')
      }
      for (let step = due(all, clock.now()); step !== undefined; step = due(all, clock.now())) {
        await become(step.list)
        done.push(step.what)
      }
      return done
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

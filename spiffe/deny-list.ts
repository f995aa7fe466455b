// The deny-list: what is believed no more although its certificate verifies. The one object of
// revocation, the same at the authority, the agents and the proxies.
import type { Serial } from './certificate.ts'
import type { SpiffeId } from './id.ts'
import { keyIdOf } from './key-id.ts'
import type { X509Svid } from './svid.ts'

export type DenyTarget =
  | { readonly kind: 'id'; readonly id: SpiffeId }
  | { readonly kind: 'serial'; readonly serial: Serial }
  /** lower-case hex of the key identifier */
  | { readonly kind: 'authority'; readonly authorityId: string }

export interface DenyRule {
  readonly id: string
  readonly target: DenyTarget
  readonly reason: string
  /** milliseconds since the epoch, 0 for never */
  readonly expiresAt: number
}

/** What a peer has shown, as far as rules can name it. */
export interface Presented {
  readonly id: SpiffeId
  readonly serial: Serial
  /** those that signed for it, its root last */
  readonly authorityIds: readonly string[]
}

export interface DenyList {
  /** The rule against a verified peer; `now` in milliseconds. */
  against(presented: Presented, now: number): DenyRule | undefined
  againstId(id: SpiffeId, now: number): DenyRule | undefined
  againstSerial(serial: Serial, now: number): DenyRule | undefined
  againstAuthority(authorityId: string, now: number): DenyRule | undefined
}

/** What a verified SVID shows. */
export function presentedOf({ id, leaf, path }: X509Svid): Presented {
  const authorityIds = path.slice(1).map(({ publicKey }) => keyIdOf(publicKey).toString('hex'))
  return { id, serial: leaf.serial, authorityIds }
}

function keyOf(target: DenyTarget): string {
  switch (target.kind) {
    case 'id':
      return `id ${target.id}`
    case 'serial':
      return `serial ${target.serial}`
    case 'authority':
      return `authority ${target.authorityId}`
  }
}

/** For the log: what a rule is about, and why where that is known. */
export function describeRule(rule: DenyRule): string {
  return rule.reason === '' ? denialText(rule) : `${denialText(rule)}: ${rule.reason}`
}

/** For whoever is denied: the reason is not theirs to know. */
export function denialText({ target }: DenyRule): string {
  return `${keyOf(target)} is on the deny-list`
}

/** Of several rules for the same target any one that lives denies. */
export function createDenyList(rules: readonly DenyRule[]): DenyList {
  const byTarget = new Map<string, DenyRule[]>()
  for (const rule of rules) {
    const key = keyOf(rule.target)
    byTarget.set(key, [...(byTarget.get(key) ?? []), rule])
  }
  const find = (target: DenyTarget, now: number) =>
    byTarget.get(keyOf(target))?.find(({ expiresAt }) => expiresAt === 0 || now < expiresAt)
  const againstId = (id: SpiffeId, now: number) => find({ kind: 'id', id }, now)
  const againstSerial = (serial: Serial, now: number) => find({ kind: 'serial', serial }, now)
  const againstAuthority = (authorityId: string, now: number) =>
    find({ kind: 'authority', authorityId }, now)
  return {
    ...{ againstId, againstSerial, againstAuthority },
    against({ id, serial, authorityIds }, now) {
      if (byTarget.size === 0) return undefined
      const ofAuthority = () =>
        authorityIds
          .map((authorityId) => againstAuthority(authorityId, now))
          .find((rule) => rule !== undefined)
      return againstId(id, now) ?? againstSerial(serial, now) ?? ofAuthority()
    },
  }
}

export const denyNothing: DenyList = createDenyList([])

// A signing key with its place in the rotation, and what can be done with those of one kind.
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import type { AuthorityKind, AuthorityState, OverrideRow } from '../store/model.ts'
import type { AuthorityTable } from '../store/store.ts'
import type { KeyKeeper } from './keys.ts'

/** One signing key with its place in the rotation. */
export interface Slot {
  readonly kind: AuthorityKind
  /** X.509: lower-case hex of the subject key identifier; JWT and WIT: the `kid` */
  readonly id: string
  readonly state: AuthorityState
  /** not to be trusted any more: whoever has something signed by it renews at once */
  readonly isTainted: boolean
  /** milliseconds since the epoch, like all times here; 0 for never */
  readonly taintedAt: number
  /** undefined where another replica has it */
  readonly key: KeyObject | undefined
  /** DER: a certificate, or a SubjectPublicKeyInfo */
  readonly material: Uint8Array
  readonly notBefore: number
  readonly notAfter: number
  readonly preparedAt: number
  /** who has its key: a replica, or as in `Foreign`; empty when all have */
  readonly replica: string
  /** X.509: a leaf to rehearse with, whose key is gone, DER; else empty */
  readonly canary: Uint8Array
}

export type Signing<T extends Slot> = T & { readonly key: KeyObject }

/** What a kind adds to the key itself. */
export type Made = Pick<
  Signing<Slot>,
  'id' | 'key' | 'material' | 'notBefore' | 'notAfter' | 'canary'
>

/** An authority that somebody else has the key of. */
export interface Foreign extends Pick<Slot, 'id' | 'material' | 'notBefore' | 'notAfter'> {
  /** who: no name that a replica could have */
  readonly replica: string
}

/** Throws when the step may not be taken; what it returns is recorded with it. */
export type Permit<T> = (slot: T) => Promise<OverrideRow | undefined>

export interface Slots<T extends Slot> {
  /** The signer. Throws ERR_UNAVAILABLE when there is none that is valid. */
  active(): Signing<T>
  /** All that are published, of other replicas too, in the order in which they were prepared. */
  all(): readonly T[]
  /** Those that this replica has the keys of, and takes through the rotation. */
  own(): readonly T[]
  /** The cursor of the last change, over restarts too. */
  readonly sequence: number
  /** Does what is due: prepare, activate, forget what has expired. Says what it did. */
  advance(): Promise<readonly string[]>
  /** A new one takes the place of the one that is prepared. ERR_PRECONDITION when there are too many. */
  prepare(): Promise<T>
  /**
   * The prepared one signs from now on. ERR_PRECONDITION when `id` is not prepared, and whatever `permit`
   * throws, which is asked last.
   */
  activate(id: string, permit: Permit<T>): Promise<T>
  /** ERR_PRECONDITION when `id` is not old. */
  taint(id: string): Promise<T>
  /**
   * Publishes what others sign with, as old ones that can be tainted and revoked. ERR_ALREADY_EXISTS for an
   * id that another key has, ERR_PRECONDITION when there are too many.
   */
  adopt(foreign: readonly Foreign[]): Promise<void>
  /** What a replica that is gone for good has published becomes old and tainted; its prepared one goes. */
  retire(replica: string): Promise<void>
  /** Takes a tainted one out of everything that is published, and forgets its key. As `activate`. */
  revoke(id: string, permit: Permit<T>): Promise<T>
  /** when what is published changed last */
  readonly publishedAt: number
  /** Called after each change. */
  onChange(listener: () => void): Disposable
  /** Reads the table again; done by itself after each of its events. */
  reload(): Promise<void>
}

export interface SlotsOptions<T extends Slot> {
  readonly kind: AuthorityKind
  /** who takes these through the rotation; empty when all replicas have the keys */
  readonly replica: string
  readonly table: AuthorityTable
  readonly keys: KeyKeeper
  readonly clock: Clock
  /** Makes a key that is valid from a moment before `now`. */
  readonly make: (now: number) => Promise<Made> | Made
  readonly load: (slot: Slot) => T
  /** how many may be published at once */
  readonly most: number
  /** Whether everybody who has to know what is published now does. */
  readonly isKnown: () => Promise<boolean>
}

/** Whether this replica has its key. */
export function canSign<T extends Slot>(slot: T): slot is Signing<T> {
  return slot.key !== undefined
}

/** In the words of operators. */
export const phases = ['prepared', 'active', 'old', 'tainted'] as const
export type Phase = (typeof phases)[number]

export function phaseOf({ state, isTainted }: Pick<Slot, 'state' | 'isTainted'>): Phase {
  return isTainted ? 'tainted' : state
}

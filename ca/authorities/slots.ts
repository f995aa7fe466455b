// The signing keys of one kind: one active, perhaps one prepared, old ones until they expire or are
// revoked; all of them are published. Renewed by time: prepared at half of the active one's life,
// activated at 5/6; or by an operator: prepare, activate, taint, revoke.
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type {
  AuthorityKind,
  AuthorityRow,
  AuthorityState,
  AuthorityTable,
  OverrideRow,
} from '../store/store.ts'
import type { KeyFolder } from './keys.ts'

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
  readonly key: KeyObject
  /** DER: a certificate, or a SubjectPublicKeyInfo */
  readonly material: Uint8Array
  readonly notBefore: number
  readonly notAfter: number
  readonly preparedAt: number
}

/** What a kind adds to the key itself. */
export type Made = Pick<Slot, 'id' | 'key' | 'material' | 'notBefore' | 'notAfter'>

/** Throws when the step may not be taken; what it returns is recorded with it. */
export type Permit<T> = (slot: T) => OverrideRow | undefined

export interface Slots<T extends Slot> {
  /** The signer. Throws ERR_UNAVAILABLE when there is none that is valid. */
  active(): T
  /** All that are published, in the order in which they were prepared. */
  all(): readonly T[]
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
  /** Takes a tainted one out of everything that is published, and forgets its key. As `activate`. */
  revoke(id: string, permit: Permit<T>): Promise<T>
  /** when what is published changed last */
  readonly publishedAt: number
  /** Called after each change. */
  onChange(listener: () => void): Disposable
}

export interface SlotsOptions<T extends Slot> {
  readonly kind: AuthorityKind
  readonly table: AuthorityTable
  readonly keys: KeyFolder
  readonly clock: Clock
  /** Makes a key that is valid from a moment before `now`. */
  readonly make: (now: number) => Promise<Made> | Made
  readonly load: (slot: Slot) => T
  /** how many may be published at once */
  readonly most: number
  /** Whether everybody who has to know what is published now does. */
  readonly isKnown: () => boolean
}

/** How much of its life a slot has behind it, from 0 to 1. */
function ageOf({ notBefore, notAfter }: Slot, now: number): number {
  return (now - notBefore) / (notAfter - notBefore)
}

function rowOf(slot: Slot): AuthorityRow {
  const { kind, id, state, taintedAt, material, notBefore, notAfter, preparedAt } = slot
  return { kind, id, state, taintedAt, material, notBefore, notAfter, preparedAt }
}

const inState = <T extends Slot>(all: readonly T[], state: AuthorityState) =>
  all.find((it) => it.state === state)

function activated<T extends Slot>(all: readonly T[], next: T): T[] {
  return all.map((it): T => {
    if (it === next) return { ...it, state: 'active' }
    return it.state === 'active' ? { ...it, state: 'old' } : it
  })
}

interface Due<T> {
  readonly list: readonly T[]
  readonly what: string
}

/** What is due now, as the new list and a word for the log; undefined when nothing is. */
function due<T extends Slot>(
  all: readonly T[],
  now: number,
  isKnown: () => boolean,
): Due<T> | undefined {
  const living = all.filter((it) => it.state === 'active' || now <= it.notAfter)
  if (living.length < all.length) return { list: living, what: 'forgot an expired authority' }
  const active = inState(all, 'active')
  const next = inState(all, 'prepared')
  if (active === undefined || next === undefined || ageOf(active, now) < 5 / 6) return undefined
  // one that was prepared late still gets a while to be known, unless the active one is about to end
  const hadTime = now - next.preparedAt >= (active.notAfter - active.notBefore) / 12
  if (!hadTime && ageOf(active, now) < 0.95) return undefined
  // an active one that has ended signs nothing any more: waiting would only make it worse
  if (now <= active.notAfter && !isKnown()) return undefined
  return { list: activated(all, next), what: 'activated the prepared authority' }
}

/** The slots of a kind, in memory and in the store. */
interface Held<T extends Slot>
  extends Pick<Slots<T>, 'sequence' | 'publishedAt' | 'all' | 'onChange'> {
  become(list: readonly T[], override?: OverrideRow): Promise<void>
  /** A new one takes the place of whoever is in `state`. */
  add(state: AuthorityState): Promise<T>
}

function hold<T extends Slot>(options: SlotsOptions<T>): Held<T> {
  const { kind, table, keys, clock, make, load, most } = options
  const topic = createTopic<void>()
  let all: readonly T[] = table
    .list()
    .filter((row) => row.kind === kind)
    .map((row) => load({ ...row, isTainted: row.taintedAt > 0, key: keys.load(row.id) }))
  keys.keepOnly(all.map(({ id }) => id))
  let sequence = table.sequence()
  let publishedAt = Math.max(0, ...all.flatMap((it) => [it.preparedAt, it.taintedAt]))

  async function become(list: readonly T[], override?: OverrideRow): Promise<void> {
    const kept = new Set(list.map(({ id }) => id))
    const removed = all.map(({ id }) => id).filter((id) => !kept.has(id))
    sequence = await table.set(list.map(rowOf), removed, override)
    publishedAt = clock.now()
    all = list
    keys.keepOnly([...kept])
    topic.publish()
  }

  return {
    become,
    all: () => all,
    get sequence() {
      return sequence
    },
    get publishedAt() {
      return publishedAt
    },
    async add(state) {
      const others = all.filter((it) => it.state !== state)
      if (others.length >= most) {
        throw new IdentityError(
          'ERR_PRECONDITION',
          `${others.length} authorities of kind ${kind} are published already; revoke an old one first`,
        )
      }
      const now = clock.now()
      const made = await make(now)
      const slot = load({ ...made, kind, state, isTainted: false, taintedAt: 0, preparedAt: now })
      // the key is on disk before the row that speaks of it
      keys.save(slot.id, slot.key)
      await become([...others, slot])
      return slot
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

/** What an operator may do. */
function operations<T extends Slot>({ all, add, become }: Held<T>, clock: Clock) {
  function demand(id: string, state: AuthorityState): T {
    const slot = all().find((it) => it.id === id)
    if (slot?.state === state) return slot
    const is = slot === undefined ? 'unknown' : slot.state
    throw new IdentityError(
      'ERR_PRECONDITION',
      `authority ${JSON.stringify(id.slice(0, 80))} is ${is}, not ${state}`,
    )
  }

  return {
    prepare: () => add('prepared'),
    async activate(id: string, permit: Permit<T>): Promise<T> {
      const next = demand(id, 'prepared')
      await become(activated(all(), next), permit(next))
      return { ...next, state: 'active' }
    },
    async taint(id: string): Promise<T> {
      const slot = demand(id, 'old')
      const tainted: T = { ...slot, isTainted: true, taintedAt: clock.now() }
      await become(all().map((it) => (it === slot ? tainted : it)))
      return tainted
    },
    async revoke(id: string, permit: Permit<T>): Promise<T> {
      const slot = demand(id, 'old')
      if (!slot.isTainted)
        throw new IdentityError(
          'ERR_PRECONDITION',
          `authority ${id} is not tainted; taint it first`,
        )
      const override = permit(slot)
      await become(
        all().filter((it) => it !== slot),
        override,
      )
      return slot
    },
  }
}

/** Runs one piece of work after the other: each step starts from what the one before it has left. */
function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const turn = last.then(work, work)
    last = turn.catch(() => {})
    return turn
  }
}

/** Loads the slots of `kind`; makes and activates the first one when there is none. */
export async function openSlots<T extends Slot>(options: SlotsOptions<T>): Promise<Slots<T>> {
  const { clock, isKnown, most } = options
  const held = hold(options)
  const { add, all, become } = held
  const { prepare, activate, taint, revoke } = operations(held, clock)
  const inTurn = createTurns()
  if (all().length === 0) await add('active')

  async function advance(): Promise<readonly string[]> {
    const done: string[] = []
    const active = inState(all(), 'active')
    const isNextDue = active === undefined || ageOf(active, clock.now()) >= 1 / 2
    if (isNextDue && inState(all(), 'prepared') === undefined && all().length < most) {
      await add('prepared')
      done.push('prepared a new authority')
    }
    for (;;) {
      const step = due(all(), clock.now(), isKnown)
      if (step === undefined) return done
      await become(step.list)
      done.push(step.what)
    }
  }

  return {
    prepare: () => inTurn(prepare),
    activate: (id, permit) => inTurn(() => activate(id, permit)),
    taint: (id) => inTurn(() => taint(id)),
    revoke: (id, permit) => inTurn(() => revoke(id, permit)),
    advance: () => inTurn(advance),
    active() {
      const active = inState(all(), 'active')
      if (active === undefined || clock.now() > active.notAfter) {
        throw new IdentityError('ERR_UNAVAILABLE', 'no authority is active and valid', {
          retryAfter: 5000,
        })
      }
      return active
    },
    all,
    get sequence() {
      return held.sequence
    },
    get publishedAt() {
      return held.publishedAt
    },
    onChange: held.onChange,
  }
}

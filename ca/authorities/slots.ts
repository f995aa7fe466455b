// The signing keys of one kind: one active, perhaps one prepared, old ones until they expire or are
// revoked; all of them are published. Renewed by time: prepared at half of the active one's life,
// activated at 5/6; or by an operator: prepare, activate, taint, revoke.
import type { Clock } from '../../runtime/clock.ts'
import { createTurns } from '../../runtime/lifecycle.ts'
import { hasCode, IdentityError } from '../../spiffe/errors.ts'
import type { AuthorityState } from '../store/model.ts'
import type { EventTable } from '../store/store.ts'
import { type Held, hold } from './held.ts'
import {
  canSign,
  type Foreign,
  type Permit,
  type Slot,
  type Slots,
  type SlotsOptions,
} from './slot.ts'

/** How much of its life a slot has behind it, from 0 to 1. */
function ageOf({ notBefore, notAfter }: Slot, now: number): number {
  return (now - notBefore) / (notAfter - notBefore)
}

const inState = <T extends Slot>(all: readonly T[], state: AuthorityState) =>
  all.find((it) => it.state === state)

function activated<T extends Slot>(own: readonly T[], next: T): T[] {
  return own.map((it): T => {
    if (it === next) return { ...it, state: 'active' }
    return it.state === 'active' ? { ...it, state: 'old' } : it
  })
}

/** An old one whose life is over; some keys of tokens have no end. */
const isEnded = ({ state, notAfter }: Slot, now: number) =>
  state === 'old' && notAfter !== 0 && now > notAfter

interface Due<T> {
  readonly list: readonly T[]
  readonly what: string
}

const activation = 'activated the prepared authority'

/** What is due now, as the new list and a word for the log; undefined when nothing is. */
async function due<T extends Slot>(
  own: readonly T[],
  now: number,
  isKnown: () => Promise<boolean>,
): Promise<Due<T> | undefined> {
  const living = own.filter((it) => it.state === 'active' || now <= it.notAfter)
  if (living.length < own.length) return { list: living, what: 'forgot an expired authority' }
  const active = inState(own, 'active')
  const next = inState(own, 'prepared')
  if (next === undefined) return undefined
  // a replica that is new signs as soon as the agents know it
  if (active === undefined)
    return (await isKnown()) ? { list: activated(own, next), what: activation } : undefined
  if (ageOf(active, now) < 5 / 6) return undefined
  // one that was prepared late still gets a while to be known, unless the active one is about to end
  const hadTime = now - next.preparedAt >= (active.notAfter - active.notBefore) / 12
  if (!hadTime && ageOf(active, now) < 0.95) return undefined
  // an active one that has ended signs nothing any more: waiting would only make it worse
  if (now <= active.notAfter && !(await isKnown())) return undefined
  return { list: activated(own, next), what: activation }
}

/** those of one authority below this one, or of an operator */
const mostOfOne = 16
/** a backstop: a bundle has to stay readable */
const mostPublished = 64

/** Whether nobody has this id. Throws ERR_ALREADY_EXISTS when another key has. */
function isFresh(all: readonly Slot[], id: string, material: Uint8Array): boolean {
  const known = all.find((it) => it.id === id)
  if (known === undefined) return true
  if (Buffer.compare(known.material, material) === 0) return false
  throw new IdentityError('ERR_ALREADY_EXISTS', `authority ${JSON.stringify(id)} has another key`)
}

/** What others have the keys of: published all the same. */
function adoption<T extends Slot>({ all, become }: Held<T>, options: SlotsOptions<T>) {
  const { kind, clock, load } = options
  return async (foreign: readonly Foreign[]): Promise<void> => {
    const place = { kind, state: 'old', isTainted: false, taintedAt: 0, key: undefined } as const
    const canary = new Uint8Array()
    const fresh = foreign.filter(({ id, material }) => isFresh(all(), id, material))
    if (all().length + fresh.length > mostPublished) {
      const message = `${all().length} authorities of kind ${kind} are published already`
      throw new IdentityError('ERR_PRECONDITION', message)
    }
    if (fresh.length === 0) return
    const [{ replica } = { replica: '' }] = fresh
    const theirs = all().filter((it) => it.replica === replica)
    if (theirs.length + fresh.length > mostOfOne) {
      const message = `${theirs.length} keys of ${replica} are published already`
      throw new IdentityError('ERR_PRECONDITION', message)
    }
    await become(
      fresh.map((it) => load({ ...it, ...place, canary, preparedAt: clock.now() })),
      [],
    )
  }
}

/** What an operator may do. */
function operations<T extends Slot>(held: Held<T>, clock: Clock) {
  const { all, own, add, become } = held

  function demand(among: readonly T[], id: string, state: AuthorityState): T {
    const slot = among.find((it) => it.id === id)
    if (slot?.state === state) return slot
    const foreign = all().find((it) => it.id === id && !among.includes(it))
    const is = slot?.state ?? (foreign === undefined ? 'unknown' : `of replica ${foreign.replica}`)
    throw new IdentityError(
      'ERR_PRECONDITION',
      `authority ${JSON.stringify(id.slice(0, 80))} is ${is}, not ${state}`,
    )
  }

  const tainted = (slot: T): T => ({
    ...slot,
    state: 'old',
    isTainted: true,
    taintedAt: slot.isTainted ? slot.taintedAt : clock.now(),
  })

  return {
    prepare: () => add('prepared'),
    async activate(id: string, permit: Permit<T>): Promise<T> {
      const next = demand(own(), id, 'prepared')
      const override = await permit(next)
      const before = own()
      await become(activated(before, demand(before, id, 'prepared')), before, override)
      return { ...next, state: 'active' }
    },
    async taint(id: string): Promise<T> {
      const slot = demand(all(), id, 'old')
      const next = tainted(slot)
      await become([next], [slot])
      return next
    },
    async revoke(id: string, permit: Permit<T>): Promise<T> {
      const slot = demand(all(), id, 'old')
      if (!slot.isTainted)
        throw new IdentityError(
          'ERR_PRECONDITION',
          `authority ${id} is not tainted; taint it first`,
        )
      const override = await permit(slot)
      await become([], [demand(all(), id, 'old')], override)
      return slot
    },
    async retire(replica: string): Promise<void> {
      const theirs = all().filter((it) => it.replica === replica)
      const used = theirs.filter(({ state }) => state !== 'prepared')
      await become(used.map(tainted), theirs)
    },
  }
}

const mostTries = 3

/** Loads the slots of `kind`; makes and activates the first one when there is none. */
export async function openSlots<T extends Slot>(
  options: SlotsOptions<T>,
  events: Pick<EventTable, 'subscribe'>,
): Promise<Slots<T> & Disposable> {
  const { clock, isKnown, most, kind } = options
  const held = hold(options)
  const { add, all, own, become, reload } = held
  const adopt = adoption(held, options)
  const { prepare, activate, taint, revoke, retire } = operations(held, clock)
  const turns = createTurns()
  const following = events.subscribe(async (told) => {
    if (told.some((it) => it.kind === 'bundle' && it.key === kind)) await reload()
  })

  /** One step after the other; when another replica was faster, from what it has left. */
  function inTurn<R>(step: () => Promise<R>): Promise<R> {
    return turns(async () => {
      for (let tries = 1; ; tries++) {
        try {
          return await step()
        } catch (error) {
          if (!hasCode(error, 'ERR_CONFLICT') || tries === mostTries) throw error
          await reload()
        }
      }
    })
  }

  async function advance(): Promise<readonly string[]> {
    const done: string[] = []
    const ended = all().filter((it) => isEnded(it, clock.now()) && !own().includes(it))
    if (ended.length > 0) {
      await become([], ended)
      done.push('forgot an expired authority of others')
    }
    const active = inState(own(), 'active')
    const isNextDue = active === undefined || ageOf(active, clock.now()) >= 1 / 2
    if (isNextDue && inState(own(), 'prepared') === undefined && own().length < most) {
      await add('prepared')
      done.push('prepared a new authority')
    }
    for (;;) {
      const before = own()
      const step = await due(before, clock.now(), isKnown)
      if (step === undefined) return done
      await become(step.list, before)
      done.push(step.what)
    }
  }

  await reload()
  // the first of all signs at once: nobody trusts another one
  await inTurn(async () => {
    if (own().length === 0) await add(all().length === 0 ? 'active' : 'prepared')
  })

  return {
    prepare: () => inTurn(prepare),
    activate: (id, permit) => inTurn(() => activate(id, permit)),
    taint: (id) => inTurn(() => taint(id)),
    revoke: (id, permit) => inTurn(() => revoke(id, permit)),
    adopt: (foreign) => inTurn(() => adopt(foreign)),
    retire: (replica) => inTurn(() => retire(replica)),
    advance: () => inTurn(advance),
    active() {
      const active = inState(own(), 'active')
      if (active === undefined || !canSign(active) || clock.now() > active.notAfter) {
        throw new IdentityError('ERR_UNAVAILABLE', 'no authority is active and valid', {
          retryAfter: 5000,
        })
      }
      return active
    },
    all,
    own,
    get sequence() {
      return held.sequence
    },
    get publishedAt() {
      return held.publishedAt
    },
    reload,
    onChange: held.onChange,
    [Symbol.dispose]: () => following[Symbol.dispose](),
  }
}

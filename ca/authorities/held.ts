// The slots of one kind as the table has them: the table is the truth. A step is written only if nobody
// took another one meanwhile, and taken in by all replicas from there.
import { createTopic } from '../../runtime/lifecycle.ts'
import { hasCode, IdentityError } from '../../spiffe/errors.ts'
import type { AuthorityRow, AuthorityState, OverrideRow } from '../store/model.ts'
import type { Slot, Slots, SlotsOptions } from './slot.ts'

/** The slots of a kind, as the table has them. */
export interface Held<T extends Slot>
  extends Pick<Slots<T>, 'sequence' | 'publishedAt' | 'all' | 'own' | 'onChange' | 'reload'> {
  /** Writes what is other in `list` than in `instead`, which was read before; what is missing goes. */
  become(list: readonly T[], instead: readonly T[], override?: OverrideRow): Promise<void>
  /** A new one takes the place of whoever is in `state`. */
  add(state: AuthorityState): Promise<T>
}

const nothing: Uint8Array = new Uint8Array()
/** the name of none: nothing is its own */
const unknownReplica = ' '

function rowOf(slot: Slot, sealedKey = nothing): AuthorityRow {
  const { kind, id, state, taintedAt, material, notBefore, notAfter, preparedAt } = slot
  const { replica, canary } = slot
  const place = { kind, id, state, taintedAt, material, notBefore, notAfter, preparedAt }
  return { ...place, replica, sealedKey, canary }
}

/** A slot of the table, with its key when it is one of ours; what did not change is `known` already. */
function slotOf<T extends Slot>(
  { sealedKey, ...row }: AuthorityRow,
  known: T | undefined,
  { replica, keys, load }: Pick<SlotsOptions<T>, 'replica' | 'keys' | 'load'>,
): T {
  const isTainted = row.taintedAt > 0
  if (known?.state === row.state && known.isTainted === isTainted) return known
  const read = () => (row.replica === replica ? keys.load(row.id, sealedKey) : undefined)
  return load({ ...row, isTainted, key: known?.key ?? read() })
}

export function hold<T extends Slot>(options: SlotsOptions<T>): Held<T> {
  const { kind, replica, table, keys, clock, make, load, most } = options
  const topic = createTopic<void>()
  const sealedKeys = new Map<string, Uint8Array>()
  let all: readonly T[] = []
  let own: readonly T[] = []
  let sequence = -1
  let publishedAt = 0

  async function reload(): Promise<void> {
    const list = await table.list(kind)
    if (list.sequence === sequence) return
    const isFirst = sequence === -1
    all = list.rows.map((row) => {
      const known = all.find(({ id }) => id === row.id)
      try {
        return slotOf(row, known, options)
      } catch (error) {
        // at the start it says why; later, what others have sealed is published though it cannot be used
        if (isFirst || !hasCode(error, 'ERR_SEALED')) throw error
        return slotOf(row, undefined, { ...options, replica: unknownReplica })
      }
    })
    own = all.filter((it) => it.replica === replica)
    for (const { id, sealedKey } of list.rows) sealedKeys.set(id, sealedKey)
    sequence = list.sequence
    const told = all.flatMap((it) => [it.preparedAt, it.taintedAt])
    publishedAt = isFirst ? Math.max(0, ...told) : clock.now()
    keys.keepOnly(own.map(({ id }) => id))
    topic.publish()
  }

  async function become(list: readonly T[], instead: readonly T[], override?: OverrideRow) {
    const kept = new Set(list.map(({ id }) => id))
    const removed = instead.map(({ id }) => id).filter((id) => !kept.has(id))
    const rows = list
      .filter((it) => !instead.includes(it))
      .map((it) => rowOf(it, sealedKeys.get(it.id)))
    // taken in by `reload` before this resolves
    await table.set(kind, { basedOn: sequence, rows, removed, override })
  }

  return {
    become,
    reload,
    all: () => all,
    own: () => own,
    get sequence() {
      return sequence
    },
    get publishedAt() {
      return publishedAt
    },
    async add(state) {
      const before = own
      const others = before.filter((it) => it.state !== state)
      if (others.length >= most) {
        throw new IdentityError(
          'ERR_PRECONDITION',
          `${others.length} authorities of kind ${kind} are published already; revoke an old one first`,
        )
      }
      const now = clock.now()
      const made = await make(now)
      const place = { kind, state, isTainted: false, taintedAt: 0, preparedAt: now, replica }
      const slot = load({ ...made, ...place })
      // a key file is on disk before the row that speaks of it; a sealed one goes into the row
      sealedKeys.set(slot.id, keys.save(slot.id, made.key))
      await become([...others, slot], before)
      return slot
    },
    onChange: (listener) => topic.subscribe(listener),
  }
}

// When connections that are open have to end: Envoy never looks at a peer's certificate again, so whoever is denied
// from now on goes on with what was begun before, until its listener takes leave of all that it has.
import { hash } from 'node:crypto'
import { z } from 'zod'
import { createTopic } from '../../runtime/lifecycle.ts'

export interface Denial {
  readonly id: string
  /** seconds since the epoch */
  readonly createdAt: bigint
}

/** The newest cut of each listener; empty before the first. */
export interface Cuts {
  readonly inbound: string
  /** by the names of outbound listeners */
  readonly outbound: Readonly<Record<string, string>>
}

/** The newest ones: the same after older ones are over, so that an agent that has lost its disk cuts nothing either. */
function newestOf(denials: readonly Denial[]): string {
  const byTime = Map.groupBy(denials, ({ createdAt }) => createdAt)
  const [newest = 0n] = [...byTime.keys()].sort((a, b) => Number(b - a))
  const ids = byTime.get(newest)?.map(({ id }) => id) ?? []
  return ids.sort().join(' ')
}

const named = (what: string) => hash('sha256', what, 'base64url').slice(0, 16)

/** What is remembered of one listener: its newest cut, and the denials in force, none of which is news. */
interface Remembered {
  readonly cut: string
  readonly known: ReadonlySet<string>
}

const nothing: Remembered = { cut: '', known: new Set() }

/** Another cut whenever a denial is new, never when one is over; the same value while nothing has changed. */
function after(before: Remembered, denials: readonly Denial[]): Remembered {
  const news = denials.filter(({ id }) => !before.known.has(id))
  if (news.length === 0 && denials.length === before.known.size) return before
  const known = new Set(denials.map(({ id }) => id))
  if (news.length === 0) return { cut: before.cut, known }
  if (before.cut === '') return { cut: named(newestOf(denials)), known }
  // never one that a proxy has already, whatever of it was kept
  const ids = news.map(({ id }) => id).sort()
  return { cut: named(`${before.cut} ${ids.join(' ')}`), known }
}

/** What may have to do with listeners: all denials with those for callers, with each of the others its own. */
export interface Concerned {
  readonly inbound: readonly Denial[]
  readonly outbound: ReadonlyMap<string, readonly Denial[]>
}

/** As it lies on the disk, by listener. */
export const keptCuts = z.record(
  z.string(),
  z.strictObject({ cut: z.string(), known: z.array(z.string()) }),
)
export type KeptCuts = z.infer<typeof keptCuts>

/** The cuts of all listeners; an agent that starts again with what it has kept cuts nothing twice. */
export interface CutBooks {
  /** Of a proxy by a name of its own; the same value again while nothing is to be cut. */
  of(proxy: string, concerned: Concerned): Cuts
  kept(): KeptCuts
  /** Called when there is something else to keep. */
  onChange(listener: () => void): Disposable
}

export function createCutBooks(former: KeptCuts = {}): CutBooks {
  const topic = createTopic<void>()
  const newest = new Map<string, Cuts>()
  const books = new Map<string, Remembered>()
  for (const [listener, { cut, known }] of Object.entries(former))
    books.set(listener, { cut, known: new Set(known) })

  function cutOf(listener: string, denials: readonly Denial[]): string {
    const before = books.get(listener) ?? nothing
    const next = after(before, denials)
    if (next !== before) {
      books.set(listener, next)
      topic.publish()
    }
    return next.cut
  }

  return {
    of(proxy, { inbound, outbound }) {
      const before = newest.get(proxy)
      const each = [...outbound].map(([name, denials]): [string, string] => [
        name,
        cutOf(`${proxy} outbound/${name}`, denials),
      ])
      const next = {
        inbound: cutOf(`${proxy} inbound`, inbound),
        outbound: Object.fromEntries(each),
      }
      if (before !== undefined && JSON.stringify(next) === JSON.stringify(before)) return before
      newest.set(proxy, next)
      return next
    },
    kept: () =>
      Object.fromEntries(
        [...books].map(([listener, { cut, known }]) => [listener, { cut, known: [...known] }]),
      ),
    onChange: (listener) => topic.subscribe(listener),
  }
}

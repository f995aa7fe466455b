// When connections that are open have to end: Envoy never looks at a peer's certificate again, so whoever is denied
// from now on goes on with what was begun before, until its listener takes leave of all that it has.
import { hash } from 'node:crypto'

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

/** The newest ones: the same after older ones are over, so that an agent that starts again cuts nothing. */
function newestOf(denials: readonly Denial[]): string {
  const byTime = Map.groupBy(denials, ({ createdAt }) => createdAt)
  const [newest = 0n] = [...byTime.keys()].sort((a, b) => Number(b - a))
  const ids = byTime.get(newest)?.map(({ id }) => id) ?? []
  return ids.sort().join(' ')
}

const named = (what: string) => hash('sha256', what, 'base64url').slice(0, 16)

/**
 * Names the newest cut, given the denials in force: another one whenever a denial is new, never when one is over.
 * Empty before the first.
 */
export function createCuts(): (denials: readonly Denial[]) => string {
  const known = new Set<string>()
  let cut = ''
  return (denials) => {
    const news = denials.filter(({ id }) => !known.has(id))
    if (news.length === 0) return cut
    for (const { id } of news) known.add(id)
    const next = named(newestOf(denials))
    cut = next === cut ? named(`${cut} ${news.map(({ id }) => id).join(' ')}`) : next
    return cut
  }
}

/** What may have to do with listeners: all denials with those for callers, with each of the others its own. */
export interface Concerned {
  readonly inbound: readonly Denial[]
  readonly outbound: ReadonlyMap<string, readonly Denial[]>
}

/** Of each proxy by a name of its own; the same value again while nothing is to be cut. */
export function createCutBooks(): (proxy: string, concerned: Concerned) => Cuts {
  const books = new Map<string, ReturnType<typeof createCutBook>>()
  return (proxy, concerned) => {
    const book = books.get(proxy) ?? createCutBook()
    books.set(proxy, book)
    return book(concerned)
  }
}

function createCutBook(): (concerned: Concerned) => Cuts {
  const inbound = createCuts()
  const outbound = new Map<string, ReturnType<typeof createCuts>>()
  let cuts: Cuts = { inbound: '', outbound: {} }
  return (concerned) => {
    const each = [...concerned.outbound].map(([name, denials]): [string, string] => {
      const cutBy = outbound.get(name) ?? createCuts()
      outbound.set(name, cutBy)
      return [name, cutBy(denials)]
    })
    const next = { inbound: inbound(concerned.inbound), outbound: Object.fromEntries(each) }
    if (JSON.stringify(next) !== JSON.stringify(cuts)) cuts = next
    return cuts
  }
}

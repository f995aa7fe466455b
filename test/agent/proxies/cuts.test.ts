// When connections that are open have to be made anew.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createCutBooks, type Denial } from '../../../agent/proxies/cuts.ts'

/** Of one listener. */
function createCuts(books = createCutBooks()) {
  return (inbound: readonly Denial[]) => books.of('web', { inbound, outbound: new Map() }).inbound
}

const denial = (id: string, createdAt = 1) => ({ id, createdAt: BigInt(createdAt) })

describe('a cut', () => {
  it('is none before the first denial', () => {
    expect(createCuts()([])).toBe('')
  })

  it('is the same for an agent that starts again', () => {
    const rules = [denial('a', 1), denial('b', 2)]
    expect(createCuts()(rules)).toBe(createCuts()(rules))
  })

  it('is the same for one that starts again after an older denial was over', () => {
    const before = createCuts()([denial('a', 1), denial('b', 2)])
    expect(createCuts()([denial('b', 2)])).toBe(before)
  })

  it('is the same for one that starts again after the newest denial was over', () => {
    const books = createCutBooks()
    const before = createCuts(books)([denial('a', 1), denial('b', 2)])
    const again = createCuts(createCutBooks(books.kept()))
    expect(again([denial('a', 1)])).toBe(before)
    expect(again([])).toBe(before)
    expect(again([denial('c', 1)])).not.toBe(before)
  })

  it('is kept when it has changed, and only then', () => {
    const books = createCutBooks()
    let count = 0
    using _ = books.onChange(() => void count++)
    const cutBy = createCuts(books)
    for (const rules of [[], [denial('a')], [denial('a')], [], []]) cutBy(rules)
    // the first denial, and its end
    expect(count).toBe(2)
  })

  it('is another one for each denial in one second', () => {
    const cutBy = createCuts()
    const cuts = [['b'], ['b', 'a'], ['b', 'a', 'c']].map((ids) =>
      cutBy(ids.map((id) => denial(id))),
    )
    expect(new Set(cuts).size).toBe(3)
  })

  it('is another one for a denial that an authority with a late clock has made', () => {
    const cutBy = createCuts()
    const before = cutBy([denial('a', 100)])
    expect(cutBy([denial('a', 100), denial('b', 1)])).not.toBe(before)
  })

  it('changes when a denial is new, and never when one is over', () => {
    const ids = fc.uniqueArray(fc.record({ id: fc.stringMatching(/^[a-z]$/), at: fc.nat(3) }), {
      selector: ({ id }) => id,
    })
    fc.assert(
      fc.property(fc.array(ids, { minLength: 1, maxLength: 8 }), (states) => {
        const cutBy = createCuts()
        let known = new Set<string>()
        let cut = ''
        for (const state of states) {
          const denials: Denial[] = state.map(({ id, at }) => denial(id, at))
          const isNews = denials.some(({ id }) => !known.has(id))
          known = new Set(denials.map(({ id }) => id))
          const next = cutBy(denials)
          expect(next !== cut).toBe(isNews)
          cut = next
        }
      }),
    )
  })
})

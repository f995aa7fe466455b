import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { selectorsMatch, setsMatch } from '../../ca/selectors.ts'
import { SelectorMatch_MatchBehavior as Behaviour } from '../../proto/gen/spire/api/types/selector_pb.js'
import { refusalOf } from '../support/refusal.ts'

const { MATCH_EXACT, MATCH_SUBSET, MATCH_SUPERSET, MATCH_ANY } = Behaviour

describe('sets of selectors', () => {
  const table: readonly (readonly [string, string, number[]])[] = [
    ['a,b', 'a,b', [MATCH_EXACT, MATCH_SUBSET, MATCH_SUPERSET, MATCH_ANY]],
    ['a', 'a,b', [MATCH_SUBSET, MATCH_ANY]],
    ['a,b,c', 'a,b', [MATCH_SUPERSET, MATCH_ANY]],
    ['a,c', 'a,b', [MATCH_ANY]],
    ['c', 'a,b', []],
    ['', 'a', []],
  ]
  it.each(table)('%s against %s', (own, given, matching) => {
    const split = (text: string) => (text === '' ? [] : text.split(','))
    const found = [MATCH_EXACT, MATCH_SUBSET, MATCH_SUPERSET, MATCH_ANY].filter((behaviour) =>
      setsMatch(split(own), split(given), behaviour),
    )
    expect(found).toEqual(matching)
  })

  it('count each member once, in any order', () => {
    const texts = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { minLength: 1 })
    fc.assert(
      fc.property(texts, (own) => {
        const shuffled = [...own, ...own].reverse()
        for (const it of [MATCH_EXACT, MATCH_SUBSET, MATCH_SUPERSET, MATCH_ANY]) {
          expect(setsMatch(own, shuffled, it)).toBe(true)
        }
      }),
    )
  })

  it('are not compared in a way that nobody named', () => {
    expect(refusalOf(() => setsMatch(['a'], ['a'], 7))).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: 'filter: unknown match behaviour 7',
    })
  })

  it('are compared as type and value', () => {
    const own = [{ type: 'unix', value: 'uid:1' }]
    const match = (type: string, value: string) =>
      selectorsMatch(own, { selectors: [{ type, value }], match: MATCH_EXACT })
    expect(match('unix', 'uid:1')).toBe(true)
    expect(match('unix', 'uid:2')).toBe(false)
    expect(refusalOf(() => selectorsMatch(own, { selectors: [], match: MATCH_ANY }))).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: 'filter.by_selectors: has no selectors',
    })
  })
})

// Comparing sets of selectors, as SPIRE's filters do.
import { SelectorMatch_MatchBehavior as Behaviour } from '../proto/gen/spire/api/types/selector_pb.js'
import { badRequest } from './wire.ts'

interface Selector {
  readonly type: string
  readonly value: string
}

const textOf = ({ type, value }: Selector) => `${type}:${value}`

type Comparison = (own: ReadonlySet<string>, given: ReadonlySet<string>) => boolean

const comparisons: Readonly<Record<number, Comparison>> = {
  [Behaviour.MATCH_EXACT]: (own, given) => own.size === given.size && given.isSubsetOf(own),
  [Behaviour.MATCH_SUBSET]: (own, given) => own.size > 0 && own.isSubsetOf(given),
  [Behaviour.MATCH_SUPERSET]: (own, given) => given.isSubsetOf(own),
  [Behaviour.MATCH_ANY]: (own, given) => !own.isDisjointFrom(given),
}

/** Compares sets of texts by one of the match behaviours; an unknown one is refused. */
export function setsMatch(
  own: readonly string[],
  given: readonly string[],
  behaviour: number,
): boolean {
  const compare = comparisons[behaviour]
  if (compare === undefined)
    return badRequest([{ field: 'filter', problem: `unknown match behaviour ${behaviour}` }])
  return compare(new Set(own), new Set(given))
}

export function selectorsMatch(
  own: readonly Selector[],
  filter: { readonly selectors: readonly Selector[]; readonly match: number },
): boolean {
  if (filter.selectors.length === 0)
    return badRequest([{ field: 'filter.by_selectors', problem: 'has no selectors' }])
  return setsMatch(own.map(textOf), filter.selectors.map(textOf), filter.match)
}

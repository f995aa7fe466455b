// How a test of one value becomes a test of an attribute that may have several, or none. The action of
// the rule decides, so that what is ambiguous never lets more through (design.md §7).
import type { Profile } from '../language/mesh.ts'

export type Action = 'ALLOW' | 'DENY' | 'AUDIT' | 'CUSTOM'

/**
 * some: Istio's way, a field holds when a value does, and its negation when none does.
 * widest: a DENY of strict holds when any value is as it says, or not as it says not.
 * narrowest: an ALLOW of strict holds only when there is a value, and all of them are as it says.
 */
export type Quantifier = 'some' | 'widest' | 'narrowest'

export function quantifierOf(action: Action, profile: Profile): Quantifier {
  if (profile === 'istio') return 'some'
  return action === 'ALLOW' ? 'narrowest' : 'widest'
}

/** A test of all values of an attribute; an empty list is an absent attribute. */
export type ValuesTest<T> = (values: readonly T[]) => boolean

export function quantify<T>(
  test: (value: T) => boolean,
  negated: boolean,
  quantifier: Quantifier,
): ValuesTest<T> {
  const fails = (value: T) => !test(value)
  if (!negated) {
    return quantifier === 'narrowest'
      ? (values) => values.length > 0 && values.every(test)
      : (values) => values.some(test)
  }
  switch (quantifier) {
    case 'some':
      return (values) => !values.some(test)
    case 'widest':
      return (values) => values.length === 0 || values.some(fails)
    case 'narrowest':
      return (values) => values.length > 0 && values.every(fails)
  }
}

/** The same for an attribute that has one value, or none. */
export function quantifyOne<T>(
  test: (value: T) => boolean,
  negated: boolean,
  quantifier: Quantifier,
): (value: T | undefined) => boolean {
  if (!negated) return (value) => value !== undefined && test(value)
  return quantifier === 'narrowest'
    ? (value) => value !== undefined && !test(value)
    : (value) => value === undefined || !test(value)
}

/** The same for an attribute that is a set, such as the groups of a token: it has an element or it has not. */
export function quantifySet<T>(
  test: (value: T) => boolean,
  negated: boolean,
  quantifier: Quantifier,
): ValuesTest<T> {
  if (!negated) return (values) => values.some(test)
  if (quantifier === 'narrowest') return (values) => values.length > 0 && !values.some(test)
  return (values) => !values.some(test)
}

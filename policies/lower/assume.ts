// What is left to ask once an input is known, and by which of its values a predicate can be found.
import {
  all,
  always,
  any,
  type Comparison,
  type Input,
  never,
  not,
  type Predicate,
} from './predicate.ts'

/** A value of an input, or what it starts with. */
export interface Key {
  readonly how: 'exact' | 'prefix'
  readonly text: string
}

const isSame = (one: Input, other: Input) =>
  one.kind === other.kind &&
  (one.kind !== 'header' || other.kind !== 'header' || one.name === other.name)

/** The lowered expressions are such that JavaScript reads them as RE2 does, but for \C. */
function compares(comparison: Comparison, value: string): boolean {
  if (comparison.how === 'regex') {
    return new RegExp(`^(?:${comparison.text.replaceAll('\\C', '[^]')})$`).test(value)
  }
  const form = (text: string) => (comparison.ignoresCase ? text.toLowerCase() : text)
  const [wanted, given] = [form(comparison.text), form(value)]
  switch (comparison.how) {
    case 'exact':
      return given === wanted
    case 'prefix':
      return given.startsWith(wanted)
    case 'suffix':
      return given.endsWith(wanted)
    case 'contains':
      return given.includes(wanted)
  }
}

/** Undefined when the beginning alone does not tell. */
function comparesBeginning(comparison: Comparison, beginning: string): boolean | undefined {
  if (comparison.how !== 'exact' && comparison.how !== 'prefix') return undefined
  if (comparison.ignoresCase) return undefined
  const { how, text } = comparison
  if (how === 'prefix' && beginning.startsWith(text)) return true
  return text.startsWith(beginning) ? undefined : false
}

const constant = (it: boolean): Predicate => (it ? always : never)

/** The predicate for those requests alone whose input is, or starts with, the key. */
export function assume(predicate: Predicate, input: Input, key: Key): Predicate {
  switch (predicate.kind) {
    case 'text': {
      if (!isSame(predicate.input, input)) return predicate
      const known =
        key.how === 'exact'
          ? compares(predicate.comparison, key.text)
          : comparesBeginning(predicate.comparison, key.text)
      return known === undefined ? predicate : constant(known)
    }
    case 'address':
      return predicate
    case 'all':
      return all(...predicate.of.map((it) => assume(it, input, key)))
    case 'any':
      return any(...predicate.of.map((it) => assume(it, input, key)))
    case 'not':
      return not(assume(predicate.of, input, key))
  }
}

/** The predicate for requests that have no such input: Envoy would not match where it asks for it all the same. */
export function assumeAbsent(predicate: Predicate, input: Input): Predicate {
  switch (predicate.kind) {
    case 'text':
      return isSame(predicate.input, input) ? never : predicate
    case 'address':
      return predicate
    case 'all':
      return all(...predicate.of.map((it) => assumeAbsent(it, input)))
    case 'any':
      return any(...predicate.of.map((it) => assumeAbsent(it, input)))
    case 'not':
      return not(assumeAbsent(predicate.of, input))
  }
}

/** The predicate holds only where one of these does; undefined when there is no telling. */
export function keysOf(predicate: Predicate, input: Input): readonly Key[] | undefined {
  switch (predicate.kind) {
    case 'text': {
      const { comparison } = predicate
      if (!isSame(predicate.input, input) || comparison.how === 'regex') return undefined
      const { how, text, ignoresCase } = comparison
      return (how === 'exact' || how === 'prefix') && !ignoresCase ? [{ how, text }] : undefined
    }
    case 'address':
    case 'not':
      return undefined
    case 'all': {
      const known = predicate.of.flatMap((it) => {
        const keys = keysOf(it, input)
        return keys === undefined ? [] : [keys]
      })
      // any of them would do; exact ones are looked up best
      return known.find((keys) => keys.every(({ how }) => how === 'exact')) ?? known[0]
    }
    case 'any': {
      const found: Key[] = []
      for (const it of predicate.of) {
        const keys = keysOf(it, input)
        if (keys === undefined) return undefined
        found.push(...keys)
      }
      return found
    }
  }
}

// Hosts, as comparisons of `:authority`. The guard has refused whatever is no plain name or [IPv6] address with
// an optional final dot and an optional port; so that is what expressions meet.
import { namesPort } from '../attributes/host.ts'
import { type Pattern, patternOf } from '../rules/pattern.ts'
import { exactly, type Lower } from './lowering.ts'
import {
  all,
  any,
  header,
  isPresent,
  never,
  not,
  type Predicate,
  quote,
  regex,
  text,
} from './predicate.ts'

const authority = header(':authority')
const tail = '\\.?(?::[0-9]+)?'
// what a name can start with before a suffix of it, and end with after a prefix
const start = '(?:[a-z0-9_.-]*|\\[[0-9a-f:.]*)'
const end = '(?:[a-z0-9_.-]*[a-z0-9_-]|[0-9a-f:.]*\\])'

const ignoringCase = (expression: string) => regex(authority, `(?i:${expression})`)

/** A name has no final dot, for it is taken off before it is compared. */
const isName = (text: string) => !text.endsWith('.')

function name(pattern: Pattern): Predicate {
  switch (pattern.kind) {
    case 'exact':
      return isName(pattern.text) ? ignoringCase(quote(pattern.text) + tail) : never
    case 'prefix': {
      const isWhole = isName(pattern.text) ? '?' : ''
      return ignoringCase(`${quote(pattern.text)}${end}${isWhole}${tail}`)
    }
    case 'suffix':
      return isName(pattern.text) ? ignoringCase(`${start}${quote(pattern.text)}${tail}`) : never
    case 'present':
      return isPresent(authority)
  }
}

/** At the colon before the port. */
function split(text: string): { readonly name: string; readonly port: string } {
  const colon = text.lastIndexOf(':')
  return { name: text.slice(0, colon), port: text.slice(colon + 1) }
}

/** A pattern that speaks of a port is compared with name and port, the final dot taken off. */
function nameAndPort(pattern: Exclude<Pattern, { kind: 'present' }>): Predicate {
  const { name: before, port } = split(pattern.text)
  // an address that is not closed: the colon is one of its own
  const isOpen = before.includes('[') && !before.includes(']')
  if (pattern.kind === 'prefix' && isOpen) return ignoringCase(`${quote(pattern.text)}.*`)
  if (!isName(before) || !/^[0-9]*$/.test(port)) return never
  switch (pattern.kind) {
    case 'exact':
      return ignoringCase(`${quote(before)}\\.?:${port}`)
    case 'prefix':
      return ignoringCase(`${quote(before)}\\.?:${port}[0-9]*`)
    case 'suffix':
      return ignoringCase(before === '' ? `.*:${port}` : `${start}${quote(before)}\\.?:${port}`)
  }
}

const ascii = /^[\x21-\x7e]*$/

function certain(pattern: Pattern): Predicate {
  if (pattern.kind === 'present') return isPresent(authority)
  // RE2 takes some letters beyond ASCII for the same as one of ASCII
  if (!ascii.test(pattern.text)) return never
  return namesPort(pattern.text) ? nameAndPort(pattern) : name(pattern)
}

/** A DENY is compared with the host as it was sent, too. */
function asSent(pattern: Pattern): Predicate {
  if (pattern.kind === 'present') return isPresent(authority)
  return text(authority, pattern.kind, pattern.text, true)
}

export const hosts: Lower = ({ texts, isNegated }, { quantifier }) => {
  const patterns = texts.map((it) => patternOf(it.toLowerCase()))
  const isWidest = quantifier === 'widest'
  const named = any(
    ...patterns.flatMap((it) => (isWidest ? [certain(it), asSent(it)] : [certain(it)])),
  )
  if (!isNegated) return exactly(named)
  return exactly(isWidest ? not(named) : all(isPresent(authority), not(named)))
}

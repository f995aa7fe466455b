// Header fields, as comparisons of a header's lines joined by commas: which is all that a matcher of Envoy
// sees. A comma may thus stand within a line or between two. What may be one of the lines is enough for a
// DENY; an ALLOW wants a text without any comma, which is one line for certain.
import { isOurs } from '../attributes/request.ts'
import { type Pattern, patternOf } from '../rules/pattern.ts'
import { exactly, type Lower, type Lowering, refusal } from './lowering.ts'
import {
  all,
  always,
  any,
  header,
  type Input,
  isPresent,
  never,
  not,
  type Predicate,
  quote,
  regex,
} from './predicate.ts'

// what Envoy writes, joins by other rules, or takes away before filters see it
const changed: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'cookie',
  'date',
  'expect',
  'forwarded',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'via',
  'x-client-trace-id',
  'x-forwarded-client-cert',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-request-id',
])

const anyByte = '\\C*'
const space = '[ \\t]*'

/** Whether a line may be such: between any two commas. */
function mayBe(input: Input, pattern: Pattern): Predicate {
  if (pattern.kind === 'present') return isPresent(input)
  const literal = quote(pattern.text)
  switch (pattern.kind) {
    case 'exact':
      return regex(input, `(?:${anyByte},)?${space}${literal}${space}(?:,${anyByte})?`)
    case 'prefix':
      return regex(input, `(?:${anyByte},)?${space}${literal}${anyByte}`)
    case 'suffix':
      return regex(input, `${anyByte}${literal}${space}(?:,${anyByte})?`)
  }
}

/** Whether there is one line, and it is such. */
function surelyIs(input: Input, pattern: Pattern): Predicate {
  if (pattern.kind === 'present') return isPresent(input)
  if (pattern.text.includes(',')) return never
  const literal = quote(pattern.text)
  switch (pattern.kind) {
    case 'exact':
      return regex(input, literal)
    case 'prefix':
      return regex(input, `${literal}[^,]*`)
    case 'suffix':
      return regex(input, `[^,]*${literal}`)
  }
}

const wider = 'a comma in a value counts as if it parted two'
const narrower = 'a value with a comma, or several lines, is no match'

function lowered(
  input: Input,
  patterns: readonly Pattern[],
  isNegated: boolean,
  isWidest: boolean,
) {
  const may = any(...patterns.map((it) => mayBe(input, it)))
  const surely = any(...patterns.map((it) => surelyIs(input, it)))
  if (isWidest) return isNegated ? not(surely) : may
  return isNegated ? all(isPresent(input), not(may)) : surely
}

export const headers: Lower = ({ texts, isNegated, names }, { quantifier }): Lowering => {
  const [name = ''] = names
  const isWidest = quantifier === 'widest'
  // never forwarded, and so absent whatever was sent
  if (isOurs(name)) return exactly(isNegated && isWidest ? always : never)
  if (name.startsWith(':') || changed.has(name)) {
    return refusal(`Envoy changes ${name} before it compares it`)
  }
  const patterns = texts.map(patternOf)
  const predicate = lowered(header(name), patterns, isNegated, isWidest)
  const isExact = patterns.every(({ kind }) => kind === 'present')
  return isExact
    ? exactly(predicate)
    : { ok: true, predicate, inexact: isWidest ? wider : narrower }
}

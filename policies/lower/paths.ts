// Paths, as comparisons of `:path`: normalised by the proxy, escapes left as they were sent, with its query.
// The guard has refused whatever is no plain path, so every percent sign has its two digits.
import { withUpperEscapes } from '../attributes/path.ts'
import { patternOf } from '../rules/pattern.ts'
import { isTemplate } from '../rules/template.ts'
import type { Setting } from '../rules/test.ts'
import { type Asked, exactly, type Lower, type Lowering, refusal } from './lowering.ts'
import {
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

const path = header(':path')
const query = '(?:\\?.*)?'
// a character, or the three of an escape: what stands before a suffix ends between two of them
const unit = '(?:[^?%]|%[0-9A-Fa-f]{2})'
const digit = /[0-9A-F]/

const eitherCase = (character: string) =>
  /[A-F]/.test(character) ? `[${character}${character.toLowerCase()}]` : character

/** The digits of escapes have no case; `literal` has them in upper case. */
function literally(literal: string): string {
  return literal
    .split(/(%[0-9A-F]{2})/)
    .map((part, i) =>
      i % 2 === 0 ? quote(part) : `%${eitherCase(part.charAt(1))}${eitherCase(part.charAt(2))}`,
    )
    .join('')
}

function exact(literal: string): Predicate {
  if (literal.includes('%')) return regex(path, literally(literal) + query)
  return any(text(path, 'exact', literal), text(path, 'prefix', `${literal}?`))
}

function prefix(literal: string): Predicate {
  if (!literal.includes('%')) return text(path, 'prefix', literal)
  // a pattern may end within an escape
  const [, before = literal, last = ''] = /^(.*%)([^%]?)$/.exec(literal) ?? []
  if (before === literal) return regex(path, `${literally(literal)}.*`)
  if (last !== '' && !digit.test(last)) return never
  return regex(path, `${literally(before)}${eitherCase(last)}.*`)
}

/** A suffix may begin within an escape, and then has the digits that it has in upper case. */
function suffix(literal: string): Predicate {
  const end = `${literally(literal)}${query}`
  const forms = [`${unit}*${end}`]
  const [first = '', second = ''] = literal
  if (digit.test(first)) {
    const rest = `${literally(literal.slice(1))}${query}`
    forms.push(`${unit}*%[0-9A-Fa-f]${eitherCase(first)}${rest}`)
  }
  if (digit.test(first) && digit.test(second)) {
    const rest = `${literally(literal.slice(2))}${query}`
    forms.push(`${unit}*%${eitherCase(first)}${eitherCase(second)}${rest}`)
  }
  return any(...forms.map((it) => regex(path, it)))
}

function template(written: string): Predicate {
  const parts = written.split(/(\{\*\*?\})/).map((part) => {
    if (part === '{*}') return '[^/?]+'
    return part === '{**}' ? '[^?]*' : literally(part)
  })
  return regex(path, parts.join('') + query)
}

function pathOf(written: string): Predicate {
  if (isTemplate(written)) return template(written)
  const pattern = patternOf(written)
  switch (pattern.kind) {
    case 'exact':
      return exact(pattern.text)
    case 'prefix':
      return prefix(pattern.text)
    case 'suffix':
      return suffix(pattern.text)
    case 'present':
      return isPresent(path)
  }
}

/**
 * A DENY is compared with the path as it was sent, too; the proxy has merged its slashes by then. That
 * changes the answer only for these.
 */
function seesSlashes({ texts, isNegated }: Asked): boolean {
  return isNegated || texts.some((it) => it.includes('//') || /\{\*\*\}./.test(it))
}

const refusedBackends: Readonly<Record<string, string>> = {
  servlet: 'a servlet container drops parameters of segments, which Envoy compares',
  windows: 'Windows drops dots and spaces at the end of segments, which Envoy compares',
}

function backendProblem({ isNegated }: Asked, { mesh, quantifier }: Setting): string | undefined {
  if (mesh.backend === 'caseless' && quantifier === 'widest' && !isNegated) {
    return 'the backend ignores case, and Envoy looks paths up with it'
  }
  return refusedBackends[mesh.backend]
}

export const paths: Lower = (asked, setting): Lowering => {
  const problem = backendProblem(asked, setting)
  if (problem !== undefined) return refusal(problem)
  const named = any(...asked.texts.map((it) => pathOf(withUpperEscapes(it))))
  const predicate = asked.isNegated ? not(named) : named
  const isStrange = setting.quantifier === 'widest' && seesSlashes(asked)
  return isStrange ? { ok: true, predicate, demand: 'plain-slashes' } : exactly(predicate)
}

/** `request.headers[:path]`: engine and proxy do not write queries alike. */
export const target: Lower = () =>
  refusal('a pattern of :path includes the query, and its escapes are not compared alike')

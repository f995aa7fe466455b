// Claims of a verified token and what request principals are compared with (§4.7).
import { isRecord } from './document.ts'
import { matchesForm } from './pattern.ts'

export interface TokenReader {
  readonly claims: Readonly<Record<string, unknown>> | undefined
  /** top-level claims whose string is a list in disguise */
  readonly spaceDelimited: readonly string[]
  readonly strict: boolean
}

export interface RequestPrincipal {
  readonly issuers: readonly string[]
  readonly subjects: readonly string[]
}

/** `['realm', 'roles']` of `request.auth.claims[realm][roles]`; an odd key is one odd name. */
export function claimPath(key: string): readonly string[] {
  const brackets = key.slice('request.auth.claims'.length)
  return /^(?:\[[^[\]]+\])+$/.test(brackets)
    ? brackets.slice(1, -1).split('][')
    : [brackets.slice(1, -1)]
}

function texts(value: unknown, strict: boolean): readonly string[] {
  if (typeof value === 'string') return [value]
  const isScalar = typeof value === 'number' || typeof value === 'boolean'
  return strict && isScalar ? [JSON.stringify(value)] : []
}

/** Every text of a claim that a pattern is compared with; empty when there is none. */
export function claimTexts(path: readonly string[], reader: TokenReader): readonly string[] {
  let value: unknown = reader.claims
  for (const name of path) {
    if (!isRecord(value) || !Object.hasOwn(value, name)) return []
    value = value[name]
  }
  if (Array.isArray(value)) return value.flatMap((each) => texts(each, reader.strict))
  const [name = ''] = path
  const isList = path.length === 1 && reader.spaceDelimited.includes(name)
  if (typeof value === 'string' && isList) return value.split(' ').filter((part) => part !== '')
  return texts(value, reader.strict)
}

const some = (pattern: string, values: readonly string[]): boolean =>
  values.some((value) => matchesForm(pattern, value))

export function matchesRequestPrincipal(
  pattern: string,
  { issuers, subjects }: RequestPrincipal,
  strict: boolean,
): boolean {
  const slash = pattern.lastIndexOf('/')
  if (slash >= 0) {
    return some(pattern.slice(0, slash), issuers) && some(pattern.slice(slash + 1), subjects)
  }
  if (pattern.startsWith('*')) return some('*', issuers) && some(pattern, subjects)
  if (pattern.endsWith('*')) return some(pattern, issuers) && some('*', subjects)
  const noSubject = subjects.includes('') || (strict && subjects.length === 0)
  return some(pattern, issuers) && noSubject
}

// What a verified token says, as rules compare it (authorization.md §4.7).
import type { Claims } from '../attributes/request.ts'
import type { Profile } from '../language/mesh.ts'
import { patternOf, stringTest } from './pattern.ts'

// claims that are lists with spaces between, whatever a RequestAuthentication says
const spaced: ReadonlySet<string> = new Set(['scope', 'permission'])
const none: readonly string[] = []

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function textOf(value: unknown, profile: Profile): readonly string[] {
  if (typeof value === 'string') return [value]
  // Istio's matchers know strings alone
  const isTyped = typeof value === 'number' || typeof value === 'boolean'
  return profile === 'strict' && isTyped ? [String(value)] : none
}

/** Of a list its elements; what is inside of those says nothing. */
function textsOf(value: unknown, profile: Profile): readonly string[] {
  return Array.isArray(value)
    ? value.flatMap((item) => textOf(item, profile))
    : textOf(value, profile)
}

/** The strings that a claim has; empty when it is absent or of another kind. */
export function claimValues(
  claims: Claims | undefined,
  names: readonly string[],
  profile: Profile,
): readonly string[] {
  let value: unknown = claims
  for (const name of names) {
    if (!isRecord(value) || !Object.hasOwn(value, name)) return none
    value = value[name]
  }
  const [first = '', ...inner] = names
  if (typeof value === 'string' && inner.length === 0 && spaced.has(first)) {
    return value.split(' ').filter((part) => part !== '')
  }
  return textsOf(value, profile)
}

export interface RequestPrincipal {
  /** undefined when the token does not say */
  readonly issuer: string | undefined
  readonly subject: string | undefined
}

/** Empty without token. */
export function requestPrincipalOf(claims: Claims | undefined): readonly RequestPrincipal[] {
  if (claims === undefined) return []
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  return [{ issuer: text(claims.iss), subject: text(claims.sub) }]
}

type Half = (value: string | undefined) => boolean

const present: Half = (value) => value !== undefined && value !== ''

/** One value of requestPrincipals: split at the last slash, each half compared by itself. */
function pairOf(text: string, empty: Half): { issuer: Half; subject: Half } {
  const one = (pattern: string): Half => {
    const test = stringTest([patternOf(pattern)])
    return (value) => value !== undefined && test(value)
  }
  const slash = text.lastIndexOf('/')
  if (slash >= 0) return { issuer: one(text.slice(0, slash)), subject: one(text.slice(slash + 1)) }
  if (text === '*') return { issuer: present, subject: present }
  if (text.endsWith('*')) return { issuer: one(text), subject: present }
  if (text.startsWith('*')) return { issuer: present, subject: one(text) }
  return { issuer: one(text), subject: empty }
}

/** `absentIsEmpty`: a token without subject is taken for one with an empty subject. */
export function requestPrincipalTest(
  texts: readonly string[],
  absentIsEmpty: boolean,
): (principal: RequestPrincipal) => boolean {
  const empty: Half = (value) => value === '' || (absentIsEmpty && value === undefined)
  const pairs = texts.map((text) => pairOf(text, empty))
  return ({ issuer, subject }) => pairs.some((pair) => pair.issuer(issuer) && pair.subject(subject))
}

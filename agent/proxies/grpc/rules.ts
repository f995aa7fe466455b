// Lowered rules as the lists of policies that gRPC programs judge by themselves (gRFC A41). They know no matcher
// trees, and each compares a little otherwise: what all of them compare as it is meant is written, the rest is refused.
import { assume } from '../../../policies/lower/assume.ts'
import {
  all,
  always,
  any,
  header,
  type Input,
  isNever,
  not,
  type Predicate,
} from '../../../policies/lower/predicate.ts'
import type { Named } from '../../../policies/lower/tree.ts'
import type { PrincipalSchema } from '../../../proto/gen/envoy/config/rbac/v3/rbac_pb.js'
import type { HeaderMatcherSchema } from '../../../proto/gen/envoy/config/route/v3/route_components_pb.js'
import type { StringMatcherSchema } from '../../../proto/gen/envoy/type/matcher/v3/string_pb.js'
import type { Init } from '../envoy/extension.ts'

type Principal = Init<typeof PrincipalSchema>
type Text = Extract<Predicate, { kind: 'text' }>
type Comparison = Text['comparison']

/** as `isPresent` asks */
const anything = '\\C*'
const method = header(':method')
const ofRequest: ReadonlySet<string> = new Set([':path', ':authority'])

const isAnything = ({ comparison: { how, text } }: Text) => how === 'regex' && text === anything

const isThere = (input: Input) =>
  input.kind === 'peer' || (input.kind === 'header' && ofRequest.has(input.name))

/** There is a path and a host in every call, and whoever calls has shown a certificate. */
function assumePresent(predicate: Predicate): Predicate {
  switch (predicate.kind) {
    case 'text':
      return isAnything(predicate) && isThere(predicate.input) ? always : predicate
    case 'address':
      return predicate
    case 'all':
      return all(...predicate.of.map(assumePresent))
    case 'any':
      return any(...predicate.of.map(assumePresent))
    case 'not':
      return not(assumePresent(predicate.of))
  }
}

/** A call is a POST, whatever a caller writes there, for that is how it is served. */
const settled = (predicate: Predicate): Predicate =>
  assumePresent(assume(predicate, method, { how: 'exact', text: 'POST' }))

// taken away, or written by the library itself, before a filter sees it: in one program or the other
const unseen: ReadonlySet<string> = new Set([
  ...['host', 'content-type', 'te', 'user-agent', 'accept-encoding', 'content-encoding'],
])

function headerProblem(name: string): string | undefined {
  if (ofRequest.has(name)) return undefined
  const isUnseen = name.startsWith(':') || name.startsWith('grpc-') || unseen.has(name)
  if (isUnseen) return `${name} is not what was sent when gRPC compares it`
  return name.endsWith('-bin') ? `${name} is never compared by gRPC` : undefined
}

/** Why gRPC cannot be trusted with it. */
export function problemOf(predicate: Predicate): string | undefined {
  switch (predicate.kind) {
    case 'text': {
      const { input } = predicate
      if (input.kind === 'sni') return 'gRPC does not compare server names'
      if (input.kind === 'port') return 'gRPC does not know the port'
      return input.kind === 'header' ? headerProblem(input.name) : undefined
    }
    case 'address':
      return 'gRPC programs write one address in several ways'
    case 'not':
      return problemOf(predicate.of)
    case 'all':
    case 'any':
      return predicate.of.map(problemOf).find((it) => it !== undefined)
  }
}

/** Names of header fields that it compares, the host among them. */
export function fieldsOf(predicate: Predicate): readonly string[] {
  switch (predicate.kind) {
    case 'text': {
      const { input } = predicate
      return input.kind === 'header' && input.name !== ':path' ? [input.name] : []
    }
    case 'address':
      return []
    case 'not':
      return fieldsOf(predicate.of)
    case 'all':
    case 'any':
      return predicate.of.flatMap(fieldsOf)
  }
}

/** In brackets, for one program puts `^` and `$` around it; the guard lets nothing but ASCII through to `\C`. */
const expression = (text: string): string =>
  `(?:${text.replace(/\\(.)/gs, (pair, what: string) => (what === 'C' ? '(?s:.)' : pair))})`

function stringMatcher(comparison: Comparison): Init<typeof StringMatcherSchema> {
  if (comparison.how === 'regex') {
    const regex = expression(comparison.text)
    const engineType = { case: 'googleRe2', value: {} } as const
    return { matchPattern: { case: 'safeRegex', value: { engineType, regex } } }
  }
  const { how, text: value, ignoresCase } = comparison
  return { matchPattern: { case: how, value }, ignoreCase: ignoresCase }
}

const literally = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

const expressions: Readonly<Record<Exclude<Comparison['how'], 'regex'>, (text: string) => string>> =
  {
    exact: (text) => text,
    prefix: (text) => `${text}\\C*`,
    suffix: (text) => `\\C*${text}`,
    contains: (text) => `\\C*${text}\\C*`,
  }

/** By expressions alone: not every gRPC knows the newer matchers of header fields, nor case in the older ones. */
function headerMatcher(name: string, { comparison }: Text): Init<typeof HeaderMatcherSchema> {
  if (comparison.how === 'regex' && comparison.text === anything)
    return { name, headerMatchSpecifier: { case: 'presentMatch', value: true } }
  const written =
    comparison.how === 'regex'
      ? comparison.text
      : expressions[comparison.how](literally(comparison.text))
  const isCaseless = comparison.how !== 'regex' && comparison.ignoresCase
  const regex = expression(isCaseless ? `(?i:${written})` : written)
  const engineType = { case: 'googleRe2', value: {} } as const
  return {
    name,
    headerMatchSpecifier: { case: 'safeRegexMatch', value: { engineType, regex } },
  }
}

function ofText(predicate: Text): Principal {
  const { input, comparison } = predicate
  if (input.kind === 'peer') {
    const principalName = stringMatcher(comparison)
    return { identifier: { case: 'authenticated', value: { principalName } } }
  }
  if (input.kind !== 'header') throw new TypeError(`gRPC compares no ${input.kind}`)
  if (input.name === ':path') {
    const rule = { case: 'path', value: stringMatcher(comparison) } as const
    return { identifier: { case: 'urlPath', value: { rule } } }
  }
  return { identifier: { case: 'header', value: headerMatcher(input.name, predicate) } }
}

const everybody: Principal = { identifier: { case: 'any', value: true } }
const nobody: Principal = { identifier: { case: 'notId', value: everybody } }

/** Of what has no problem. */
export function principalOf(predicate: Predicate): Principal {
  switch (predicate.kind) {
    case 'text':
      return ofText(predicate)
    case 'address':
      throw new TypeError('gRPC compares no addresses')
    case 'not':
      return { identifier: { case: 'notId', value: principalOf(predicate.of) } }
    case 'all': {
      const ids = predicate.of.map(principalOf)
      return ids.length === 0 ? everybody : { identifier: { case: 'andIds', value: { ids } } }
    }
    case 'any': {
      const ids = predicate.of.map(principalOf)
      return ids.length === 0 ? nobody : { identifier: { case: 'orIds', value: { ids } } }
    }
  }
}

export interface Judged {
  /** as far as they may hold */
  readonly rules: readonly Named[]
  /** why gRPC cannot be trusted with one of them */
  readonly reasons: readonly string[]
}

export function judgedBy(lowered: readonly Named[]): Judged {
  const rules = lowered
    .map(({ name, when }) => ({ name, when: settled(when) }))
    .filter(({ when }) => !isNever(when))
  const reasons = rules.flatMap(({ name, when }) => {
    const problem = problemOf(when)
    return problem === undefined ? [] : [`${name}: ${problem}`]
  })
  return { rules, reasons }
}

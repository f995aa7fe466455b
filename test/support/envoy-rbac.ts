// What Envoy 1.40 does with the matchers of its RBAC filters, written from its documentation and tried on the
// program (test/interop/envoy-rbac.ts): as slow as it likes, and it shares no line with what makes them.

import { isIPv4, isIPv6 } from 'node:net'
import { type Any, anyUnpack } from '@bufbuild/protobuf/wkt'
import { ActionSchema, RBAC_Action } from '../../proto/gen/envoy/config/rbac/v3/rbac_pb.js'
import { RBACSchema as HttpRBACSchema } from '../../proto/gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js'
import { RBACSchema as NetworkRBACSchema } from '../../proto/gen/envoy/extensions/filters/network/rbac/v3/rbac_pb.js'
import { IpSchema } from '../../proto/gen/envoy/extensions/matching/input_matchers/ip/v3/ip_pb.js'
import { HttpRequestHeaderMatchInputSchema } from '../../proto/gen/envoy/type/matcher/v3/http_inputs_pb.js'
import type { TypedExtensionConfig } from '../../proto/gen/xds/core/v3/extension_pb.js'
import type {
  Matcher,
  Matcher_MatcherList_Predicate,
  Matcher_MatcherTree,
  Matcher_OnMatch,
} from '../../proto/gen/xds/type/matcher/v3/matcher_pb.js'
import type { StringMatcher } from '../../proto/gen/xds/type/matcher/v3/string_pb.js'

/** A request as filters see it: normalised, pseudo headers among the headers. */
export interface EnvoyRequest {
  /** URI SANs of the verified client certificate, in its order */
  readonly uris: readonly string[]
  readonly directSourceIp: string | undefined
  readonly sourceIp: string | undefined
  readonly destinationIp: string | undefined
  readonly destinationPort: number | undefined
  readonly serverName: string | undefined
  /** names in lower case; characters are bytes */
  readonly headers: readonly (readonly [name: string, value: string])[]
}

/** The lines of a header are one text; none is no text. */
export function headerText({ headers }: EnvoyRequest, name: string): string | undefined {
  const values = headers.filter((it) => it[0] === name).map((it) => it[1])
  return values.length === 0 ? undefined : values.join(',')
}

/** What is asked of a connection without TLS: Envoy gives up, and the filter denies (1.40, tried). */
class Unavailable extends Error {}

export function peerText(uris: readonly string[]): string {
  if (uris.length === 0) throw new Unavailable('asks a connection without TLS for its peer')
  return uris.join(',')
}

export function givingUp(verdict: () => Verdict): Verdict {
  try {
    return verdict()
  } catch (error) {
    if (error instanceof Unavailable) return { isAllowed: false, name: 'unavailable' }
    throw error
  }
}

const inputs: Readonly<Record<string, (request: EnvoyRequest) => string | undefined>> = {
  UriSanInput: ({ uris }) => peerText(uris),
  DirectSourceIPInput: ({ directSourceIp }) => directSourceIp,
  SourceIPInput: ({ sourceIp }) => sourceIp,
  DestinationIPInput: ({ destinationIp }) => destinationIp,
  DestinationPortInput: ({ destinationPort: port }) => (port === undefined ? undefined : `${port}`),
  ServerNameInput: ({ serverName }) => (serverName === '' ? undefined : serverName?.toLowerCase()),
}

function packedIn(extension: TypedExtensionConfig | undefined): Any {
  if (extension?.typedConfig === undefined) throw new Error('an extension without configuration')
  return extension.typedConfig
}

const lastPart = ({ typeUrl }: Any) => typeUrl.split('.').at(-1) ?? ''

function inputText(extension: TypedExtensionConfig | undefined, request: EnvoyRequest) {
  const packed = packedIn(extension)
  const ofHeader = anyUnpack(packed, HttpRequestHeaderMatchInputSchema)
  if (ofHeader !== undefined) return headerText(request, ofHeader.headerName)
  const read = inputs[lastPart(packed)]
  if (read === undefined) throw new Error(`no such input: ${packed.typeUrl}`)
  return read(request)
}

const expressions = new Map<string, RegExp>()

/** The whole text has to match; `\C` is a byte. */
export function fullMatch(expression: string, value: string): boolean {
  const known = expressions.get(expression)
  const made = known ?? new RegExp(`^(?:${expression.replaceAll('\\C', '[^]')})$`)
  expressions.set(expression, made)
  return made.test(value)
}

function stringMatches({ matchPattern, ignoreCase }: StringMatcher, value: string): boolean {
  const form = (text: string) => (ignoreCase ? text.toLowerCase() : text)
  switch (matchPattern.case) {
    case 'exact':
      return form(value) === form(matchPattern.value)
    case 'prefix':
      return form(value).startsWith(form(matchPattern.value))
    case 'suffix':
      return form(value).endsWith(form(matchPattern.value))
    case 'contains':
      return form(value).includes(form(matchPattern.value))
    case 'safeRegex':
      return fullMatch(matchPattern.value.regex, value)
    case undefined:
      throw new Error('a string matcher without pattern')
  }
}

/** Sixteen bytes, or four. */
function bytesOf(address: string): readonly number[] {
  if (isIPv4(address)) return address.split('.').map(Number)
  if (!isIPv6(address)) throw new Error(`no address: ${address}`)
  const plain = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...four) => {
    const [a = 0, b = 0, c = 0, d = 0] = four.slice(0, 4).map(Number)
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  })
  const [head = '', rest] = plain.split('::')
  const groups = (part: string) => part.split(':').filter((it) => it !== '')
  const [before, after] = [groups(head), groups(rest ?? '')]
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0')
  return [...before, ...zeros, ...after].flatMap((group) => {
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 255]
  })
}

/** An address of one kind never lies in a range of the other. */
export function inRange(address: string, range: string, prefix: number): boolean {
  const bits = (text: string) => bytesOf(text).map((byte) => byte.toString(2).padStart(8, '0'))
  const [one, other] = [bits(address).join(''), bits(range).join('')]
  return one.length === other.length && one.slice(0, prefix) === other.slice(0, prefix)
}

/** What has no text matches nothing. */
function predicateHolds(
  { matchType }: Matcher_MatcherList_Predicate,
  request: EnvoyRequest,
): boolean {
  switch (matchType.case) {
    case 'orMatcher':
    case 'andMatcher': {
      const list = matchType.value.predicate
      if (list.length < 2) throw new Error('Envoy refuses a list of fewer than two')
      const answers = list.map((it) => predicateHolds(it, request))
      return matchType.case === 'orMatcher' ? answers.includes(true) : !answers.includes(false)
    }
    case 'notMatcher':
      return !predicateHolds(matchType.value, request)
    case 'singlePredicate': {
      const { input, matcher } = matchType.value
      const value = inputText(input, request)
      if (value === undefined) return false
      if (matcher.case === 'valueMatch') return stringMatches(matcher.value, value)
      const ip = anyUnpack(packedIn(matcher.value), IpSchema)
      if (ip === undefined) throw new Error('an unknown custom matcher')
      return ip.cidrRanges.some(({ addressPrefix, prefixLen }) =>
        inRange(value, addressPrefix, prefixLen ?? 0),
      )
    }
    case undefined:
      throw new Error('a predicate without type')
  }
}

export interface Verdict {
  readonly isAllowed: boolean
  readonly name: string
}

/** Undefined: no match, after which versions differ in whether outer parts go on. */
function followed(on: Matcher_OnMatch | undefined, request: EnvoyRequest): Verdict | undefined {
  if (on?.onMatch.case === 'matcher') return matched(on.onMatch.value, request)
  if (on?.onMatch.case !== 'action') return undefined
  const action = anyUnpack(packedIn(on.onMatch.value), ActionSchema)
  if (action === undefined) throw new Error('an unknown action')
  return { isAllowed: action.action === RBAC_Action.ALLOW, name: action.name }
}

function lookedUp({ input, treeType }: Matcher_MatcherTree, request: EnvoyRequest) {
  const value = inputText(input, request)
  if (treeType.case !== 'exactMatchMap' && treeType.case !== 'prefixMatchMap') {
    throw new Error('a tree of another kind')
  }
  const { map } = treeType.value
  if (Object.keys(map).length === 0) throw new Error('Envoy refuses an empty map')
  if (value === undefined) return undefined
  if (treeType.case === 'exactMatchMap') return map[value]
  const [longest] = Object.keys(map)
    .filter((key) => value.startsWith(key))
    .sort((a, b) => b.length - a.length)
  return longest === undefined ? undefined : map[longest]
}

function matched(matcher: Matcher, request: EnvoyRequest): Verdict | undefined {
  const { matcherType, onNoMatch } = matcher
  const found =
    matcherType.case === 'matcherTree'
      ? lookedUp(matcherType.value, request)
      : matcherType.value?.matchers.find(
          ({ predicate }) => predicate !== undefined && predicateHolds(predicate, request),
        )?.onMatch
  return followed(found ?? onNoMatch, request)
}

/** One RBAC filter, of HTTP or of TCP. Throws for what Envoy would refuse, and where versions differ. */
export function rbacVerdict(typedConfig: Any, request: EnvoyRequest): Verdict {
  const config = anyUnpack(typedConfig, HttpRBACSchema) ?? anyUnpack(typedConfig, NetworkRBACSchema)
  if (config?.matcher === undefined) throw new Error('no RBAC filter with a matcher')
  const { matcher } = config
  return givingUp(() => {
    const verdict = matched(matcher, request)
    if (verdict === undefined) throw new Error('a way through the matcher that ends in no action')
    return verdict
  })
}

// The guard in front of lowered rules: it refuses what the strict engine answers with 400 and whatever two programs
// could read differently, so that the rules behind it meet plain texts only (proxies.md §9.3). It sees
// requests as the proxy has normalised them, which is how they are judged and forwarded.
import {
  all,
  any,
  header,
  type Input,
  isPresent,
  not,
  type Predicate,
  peer,
  regex,
  text,
} from './predicate.ts'
import type { Named } from './tree.ts'

const hex = '[0-9A-Fa-f]'
const follow = `%[89ABab]${hex}`

/**
 * Escapes of well-formed UTF-8 (RFC 3629 §4). Of ASCII only what a proxy leaves escaped: no control byte, no
 * slash, no backslash, and nothing unreserved, which decoding a second time would change.
 */
const escaped = [
  '%(?:2[0-9A-Ca-c]|3[A-Fa-f]|40|5[BDEbde]|60|7[B-Db-d])',
  `%(?:[Cc][2-9A-Fa-f]|[Dd]${hex})${follow}`,
  `%[Ee]0%[ABab]${hex}${follow}`,
  `%[Ee][1-9A-CEFa-cef]${follow}${follow}`,
  `%[Ee][Dd]%[89]${hex}${follow}`,
  `%[Ff]0%[9ABab]${hex}${follow}${follow}`,
  `%[Ff][1-3]${follow}${follow}${follow}`,
  `%[Ff]4%8${hex}${follow}${follow}`,
].join('|')
const inSegment = `(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|${escaped})`
// everything visible but the number sign
const query = '(?:\\?[\\x21\\x22\\x24-\\x7e]*)?'

// without empty segments: where Envoy merges slashes only a path of slashes alone has one, which it writes as two,
// and the engine reads as one
const plainPath = `/(?:${inSegment}+/)*${inSegment}*${query}`
const dotsWithParameters = '[^?]*/\\.{1,2};.*'
const doublyEscaped = `[^?]*%25${hex}{2}.*`

const group = `${hex}{1,4}`
/** RFC 3986 §3.2.2, without a tail of IPv4. */
const v6 = [
  `(?:${group}:){7}${group}`,
  `(?:${group}:){1,7}:`,
  `(?:${group}:){1,6}:${group}`,
  ...[5, 4, 3, 2].map((before) => `(?:${group}:){1,${before}}(?::${group}){1,${7 - before}}`),
  `${group}:(?::${group}){1,6}`,
  `:(?::${group}){1,7}`,
  '::',
].join('|')
const byte = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const v4 = `${byte}(?:\\.${byte}){3}`
const address = `(?:${v4}|${v6}|(?:::|::[Ff]{4}:|(?:0:){5}[Ff]{4}:)${v4})`

const name = '[A-Za-z0-9_-]+(?:\\.[A-Za-z0-9_-]+)*\\.?'
const port = '(?:[0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])'
const authority = `(?:\\[(?:${v6})\\]|${name})(?::${port})?`

const word = '[A-Za-z0-9_-]'
// neither one dot nor two
const idSegment = `(?:${word}|\\.${word}|\\.\\.[A-Za-z0-9._-])[A-Za-z0-9._-]*`
const spiffeId = `spiffe://[a-z0-9._-]+(?:/${idSegment})*`

const path = header(':path')
const method = header(':method')
const forwarded = header('x-forwarded-for')

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

const guard = (what: string, when: Predicate): Named => ({ name: `guard[${what}]`, when })

/** A caller that shows a certificate shows one SPIFFE ID, and it has no odd path. */
export const identityGuard: Named = guard(
  'identity',
  all(isPresent(peer), not(regex(peer, spiffeId))),
)

export interface GuardOptions {
  /** methods that rules name, besides the usual ones */
  readonly methods: ReadonlySet<string>
}

/** What is refused of HTTP before any rule is asked. */
export function httpGuard(options: GuardOptions): readonly Named[] {
  const known = [...new Set([...methods, ...options.methods])]
  return [
    identityGuard,
    guard(
      'path',
      any(not(regex(path, plainPath)), regex(path, dotsWithParameters), regex(path, doublyEscaped)),
    ),
    guard('host', not(regex(header(':authority'), authority))),
    guard('method', not(any(...known.map((it) => text(method, 'exact', it))))),
    guard(
      'x-forwarded-for',
      all(
        isPresent(forwarded),
        not(regex(forwarded, `[ \\t]*${address}(?:[ \\t]*,[ \\t]*${address})*[ \\t]*`)),
      ),
    ),
  ]
}

const portOf = (number: number): Predicate =>
  text({ kind: 'port' } satisfies Input, 'exact', String(number))

/** `demands` says of a port whether only mutual TLS is taken there; `named` are those of which it says otherwise. */
export function mutualTlsGuard(
  demands: (port: number | undefined) => boolean,
  port: number | undefined,
  named: readonly number[],
): Named {
  const others = not(any(...named.map(portOf)))
  const ofPorts = port === undefined ? named.filter(demands).map(portOf) : []
  const isDemandedElse = demands(port) ? [port === undefined ? others : all()] : []
  const isDemanded = any(...ofPorts, ...isDemandedElse)
  return guard('mutual-tls', all(not(isPresent(peer)), isDemanded))
}

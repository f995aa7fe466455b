// The keys of `when` (authorization.md §4.8): one row for each, with the shape of its values and whether
// it asks about HTTP. A key without a row is refused.
import type { z } from 'zod'
import * as words from './words.ts'

export type ConditionKind =
  | 'header'
  | 'source.ip'
  | 'remote.ip'
  | 'source.namespace'
  | 'source.principal'
  | 'source.serviceAccount'
  | 'source.trustDomain'
  | 'requestPrincipal'
  | 'audiences'
  | 'presenter'
  | 'claim'
  | 'destination.ip'
  | 'destination.port'
  | 'sni'
  | 'metadata'

export interface ConditionKey {
  readonly kind: ConditionKind
  /** the header's name in lower case, or the names on the way to a claim; empty for others */
  readonly names: readonly string[]
}

interface Row {
  readonly kind: ConditionKind
  readonly values: z.ZodType<string>
  readonly isHttp: boolean
  /** of the caller's identity or token: not for CUSTOM (§4.12) */
  readonly isIdentity: boolean
}

const row = (
  kind: ConditionKind,
  values: z.ZodType<string>,
  { isHttp = false, isIdentity = false } = {},
): Row => ({ kind, values, isHttp, isIdentity })

const rows: ReadonlyMap<string, Row> = new Map([
  ['source.ip', row('source.ip', words.ipBlock)],
  ['remote.ip', row('remote.ip', words.ipBlock)],
  ['source.namespace', row('source.namespace', words.namespace, { isIdentity: true })],
  ['source.principal', row('source.principal', words.principal, { isIdentity: true })],
  [
    'source.serviceAccount',
    row('source.serviceAccount', words.serviceAccount, { isIdentity: true }),
  ],
  ['source.trustDomain', row('source.trustDomain', words.trustDomain, { isIdentity: true })],
  [
    'request.auth.principal',
    row('requestPrincipal', words.requestPrincipal, { isHttp: true, isIdentity: true }),
  ],
  ['request.auth.audiences', row('audiences', words.value, { isHttp: true, isIdentity: true })],
  ['request.auth.presenter', row('presenter', words.value, { isHttp: true, isIdentity: true })],
  ['destination.ip', row('destination.ip', words.ipBlock)],
  ['destination.port', row('destination.port', words.port)],
  ['connection.sni', row('sni', words.value)],
])

const header = row('header', words.value, { isHttp: true })
const claim = row('claim', words.value, { isHttp: true, isIdentity: true })
const metadata = row('metadata', words.value)

// of the pseudo fields those that every version of HTTP has
const headerKey = /^request\.headers\[([!#$%&'*+.^_\x60|~0-9A-Za-z-]+|:method|:path|:authority)\]$/i
const claimKey = /^request\.auth\.claims((?:\[[^[\]]+\])+)$/
const metadataKey = /^experimental\.envoy\.filters\.[^[\]]+(?:\[[^[\]]+\])+$/

export interface KnownCondition extends Row, ConditionKey {}

/** What a key asks about; undefined for a key that nobody knows. */
export function conditionOf(key: string): KnownCondition | undefined {
  const plain = rows.get(key)
  if (plain !== undefined) return { ...plain, names: [] }
  const [, name] = headerKey.exec(key) ?? []
  if (name !== undefined) return { ...header, names: [name.toLowerCase()] }
  const [, brackets] = claimKey.exec(key) ?? []
  if (brackets !== undefined) return { ...claim, names: brackets.slice(1, -1).split('][') }
  return metadataKey.test(key) ? { ...metadata, names: [] } : undefined
}

const gone: ReadonlySet<string> = new Set([
  'destination.namespace',
  'destination.labels',
  'destination.name',
  'destination.user',
  'source.user',
  'source.labels',
])

/** Why a key is refused, and what to write. */
export function unknownKeyProblem(key: string): string {
  if (gone.has(key)) return `the key ${key} is not accepted any more; a policy's selector says it`
  if (key.startsWith('request.headers')) {
    return 'a header is written request.headers[NAME], or [:method], [:path], [:authority]'
  }
  if (key.startsWith('request.auth.claims')) {
    return 'a claim is written request.auth.claims[NAME], a nested one request.auth.claims[A][B]'
  }
  return `unknown key; there are ${[...rows.keys()].join(', ')}, request.headers[NAME] and request.auth.claims[NAME]`
}

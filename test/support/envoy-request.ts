// What Envoy makes of a request before its filters see it, with the settings of proxies.md §2.2: written from
// what the program was seen to do (proxies.md §9.3, test/interop/envoy-rbac.ts).
import { isIP } from 'node:net'
import type { EnvoyRequest } from './envoy-rbac.ts'

export interface Sent {
  readonly uris: readonly string[]
  readonly peerIp: string | undefined
  readonly destinationIp: string | undefined
  readonly destinationPort: number | undefined
  readonly serverName: string | undefined
  readonly method: string
  readonly target: string
  readonly hosts: readonly string[]
  /** without hosts */
  readonly headers: readonly (readonly [name: string, value: string])[]
}

export interface Settings {
  readonly mergesSlashes: boolean
  readonly trustedHops: number
}

const encoded: Readonly<Record<string, string>> = {
  '"': '%22',
  '<': '%3C',
  '>': '%3E',
  '^': '%5E',
  '`': '%60',
  '{': '%7B',
  '|': '%7C',
  '}': '%7D',
}

/** Each escape of an unreserved character once; a percent sign that was none begins none by that. */
function decoded(path: string): string {
  const once = path
    .replace(/%(?![0-9A-Fa-f]{2})/g, ' ')
    .replace(/%([0-9A-Fa-f]{2})/g, (whole, hex) => {
      const character = String.fromCharCode(Number.parseInt(hex, 16))
      return /[A-Za-z0-9._~-]/.test(character) ? character : whole
    })
  return once.replace(/ (?=[0-9A-Fa-f]{2})/g, '%25').replaceAll(' ', '%')
}

/** Those of dots that were sent bare, behind a slash that was one; a backslash is one of theirs. */
const withoutParameters = (path: string) => path.replace(/(?<=\/)(\.{1,2});[^/]*/g, '$1')

function withoutDots(path: string): string {
  const kept: string[] = []
  const segments = path.slice(1).split('/')
  for (const [i, segment] of segments.entries()) {
    const isLast = i === segments.length - 1
    const dots = segment.replace(/%2e/gi, '.')
    if (dots === '..') kept.pop()
    if (dots !== '.' && dots !== '..') kept.push(segment)
    else if (isLast) kept.push('')
  }
  return `/${kept.join('/')}`
}

/** Slashes alone have one in front and one behind. */
function merged(path: string): string {
  return /^\/{2,}$/.test(path) ? '//' : path.replace(/\/{2,}/g, '/')
}

/** `:path` as filters see it; undefined when Envoy answers by itself. */
export function envoyPath(target: string, mergesSlashes: boolean): string | undefined {
  if (!/^[\x21-\x7e]+$/.test(target) || !target.startsWith('/')) return undefined
  const [path = '', ...rest] = target.split('?')
  const query = rest.length === 0 ? '' : `?${rest.join('?')}`
  if (target.includes('#') || /%(?:2f|5c)/i.test(path)) return undefined
  const bare = withoutParameters(path)
  if (bare.includes('%00')) return undefined
  const escaped = bare.replace(/["<>^`{|}]/g, (character) => encoded[character] ?? '')
  const slashed = escaped.replaceAll('\\', '/')
  const plain = decoded(withoutDots(slashed))
  if (/%(?:2f|5c)/i.test(plain)) return undefined
  return (mergesSlashes ? merged(plain) : plain) + query
}

const trimmed = (value: string) => value.replace(/^[ \t]+|[ \t]+$/g, '')

function clientIp({ headers, peerIp }: Sent, hops: number): string | undefined {
  if (hops === 0) return peerIp
  const lines = headers.filter(([name]) => name.toLowerCase() === 'x-forwarded-for')
  const entries = lines.flatMap(([, value]) => value.split(',')).map((it) => it.trim())
  const entry = entries[entries.length - hops]
  return entry === undefined || isIP(entry) === 0 ? peerIp : entry
}

const isName = (name: string) => /^[!#$%&'*+.^`|~0-9A-Za-z-]+$/.test(name)
const isValue = (value: string) => !/[\0\r\n]/.test(value)

/** Undefined when Envoy answers by itself. */
export function asEnvoySees(sent: Sent, settings: Settings): EnvoyRequest | undefined {
  const path = envoyPath(sent.target, settings.mergesSlashes)
  const [host] = sent.hosts
  if (path === undefined || host === undefined) return undefined
  if (!sent.headers.every(([name, value]) => isName(name) && isValue(value))) return undefined
  const headers = sent.headers
    .map(([name, value]) => [name.toLowerCase(), trimmed(value)] as const)
    .filter(([name]) => name !== 'x-forwarded-for')
  const forwarded = sent.headers
    .filter(([name]) => name.toLowerCase() === 'x-forwarded-for')
    .map(([, value]) => trimmed(value))
  const seen = [...forwarded, ...(sent.peerIp === undefined ? [] : [sent.peerIp])].join(',')
  return {
    uris: sent.uris,
    directSourceIp: sent.peerIp,
    sourceIp: clientIp(sent, settings.trustedHops),
    destinationIp: sent.destinationIp,
    destinationPort: sent.destinationPort,
    serverName: sent.serverName,
    headers: [
      [':method', sent.method],
      [':path', path],
      // repeated hosts are one text
      [':authority', sent.hosts.map(trimmed).join(',')],
      ...headers,
      ...(seen === '' ? [] : [['x-forwarded-for', seen] as const]),
    ],
  }
}

// A request as corpus/README.md says it, and what of it policies are compared with.
import { blockHolds, parseAddress } from './address.ts'
import { splitHost } from './host.ts'
import type { Mesh } from './mesh.ts'
import { isRefusedInStrict } from './path.ts'

type Field = readonly [name: string, value: string]

export interface OracleRequest {
  readonly source?: {
    readonly principal?: string | undefined
    readonly ip?: string | undefined
    readonly port?: number | undefined
  }
  readonly destination?: {
    readonly principal?: string | undefined
    readonly ip?: string | undefined
    readonly port?: number | undefined
    readonly namespace?: string | undefined
    readonly labels?: Readonly<Record<string, string>> | undefined
  }
  readonly remoteIp?: string | undefined
  readonly tls?: { readonly sni?: string | undefined } | undefined
  readonly http?:
    | {
        readonly method?: string | undefined
        readonly host?: string | undefined
        readonly path?: string | undefined
        readonly headers?: readonly (readonly string[])[] | undefined
      }
    | undefined
  readonly h2?: readonly (readonly string[])[] | undefined
  readonly jwt?: { readonly claims: Readonly<Record<string, unknown>> } | undefined
}

/** The HTTP part of a request; names of headers in lower case, hosts are not among them. */
export interface HttpView {
  readonly method: string
  readonly host: string | undefined
  /** as sent, without query and fragment */
  readonly path: string | undefined
  /** with its question mark; empty when there is none */
  readonly query: string
  readonly headers: readonly Field[]
}

interface Parts {
  readonly method: string | undefined
  readonly hosts: readonly string[]
  readonly target: string | undefined
  readonly headers: readonly Field[]
}

const isToken = (text: string): boolean => /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(text)

const isControl = (code: number): boolean => code < 0x20 || code === 0x7f

/** Whether a character is nothing that a value of a header may hold; a tab is. */
const hasControl = (value: string): boolean =>
  [...value].some((character) => character !== '\t' && isControl(character.charCodeAt(0)))

const field = ([name = '', value = '']: readonly string[]): Field => [
  name.toLowerCase(),
  value.replace(/^[ \t]+|[ \t]+$/g, ''),
]

const isHost = ([name]: Field): boolean => name === 'host'

function partsOfHttp(http: NonNullable<OracleRequest['http']>): Parts | undefined {
  const headers = (http.headers ?? []).map(field)
  const named = headers.filter(isHost).map(([, value]) => value)
  const hosts = http.host === undefined ? named : [http.host, ...named]
  // RFC 9112 §3.2.2: what an absolute target says of the host is what counts
  const [, authority, rest = ''] =
    /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)(.*)$/is.exec(http.path ?? '') ?? []
  const isAbsolute = authority !== undefined && hosts.length <= 1
  return {
    method: http.method,
    hosts: isAbsolute ? [authority] : hosts,
    target: isAbsolute ? rest.replace(/^(?!\/)/, '/') : http.path,
    headers: headers.filter((each) => !isHost(each)),
  }
}

/** RFC 9113 §8.2.2: these belong to one connection of HTTP/1.1. */
const connectionSpecific = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]

/** RFC 9113 §8.2, §8.3; undefined: malformed. */
function partsOfH2(lines: readonly (readonly string[])[]): Parts | undefined {
  const pseudo = lines.filter(([name = '']) => name.startsWith(':'))
  const regular = lines.filter(([name = '']) => !name.startsWith(':'))
  const names = pseudo.map(([name = '']) => name)
  if (lines.slice(0, pseudo.length).some(([name = '']) => !name.startsWith(':'))) return undefined
  if (new Set(names).size !== names.length) return undefined
  if (names.some((name) => ![':method', ':scheme', ':authority', ':path'].includes(name)))
    return undefined
  const headers = regular.map(field)
  if (regular.some(([name = '']) => name !== name.toLowerCase())) return undefined
  if (
    headers.some(
      ([name, value]) =>
        connectionSpecific.includes(name) || (name === 'te' && value !== 'trailers'),
    )
  ) {
    return undefined
  }
  const pseudoHeader = (name: string) => pseudo.find((line) => line[0] === name)?.[1]
  const [authority, scheme, method] = [
    pseudoHeader(':authority'),
    pseudoHeader(':scheme'),
    pseudoHeader(':method'),
  ]
  if (scheme === undefined) return undefined
  const hosts = headers.filter(isHost).map(([, value]) => value)
  // without an authority, or with two of them, there is no telling whom the request is for
  const [host = authority] = hosts
  if (host === undefined || hosts.length > 1 || host !== (authority ?? host)) return undefined
  return {
    method,
    hosts: [host],
    target: pseudoHeader(':path'),
    headers: headers.filter((each) => !isHost(each)),
  }
}

function isRefused({ method, hosts, target, headers }: Parts): boolean {
  if (method === undefined || !isToken(method) || hosts.length > 1) return true
  if (headers.some(([name, value]) => !isToken(name) || hasControl(value))) return true
  if (hosts.some(hasControl)) return true
  if (target === undefined) return true
  if (
    !target.startsWith('/') ||
    [...target].some((character) => character === ' ' || isControl(character.charCodeAt(0)))
  ) {
    return true
  }
  return target.replace(/[?#].*$/s, '').includes('%00')
}

const isAscii = (text: string): boolean =>
  [...text].every((character) => character.charCodeAt(0) < 0x80)

const isRefusedHere = ({ hosts, target }: Parts): boolean =>
  hosts.some((host) => splitHost(host) === undefined) ||
  (target !== undefined &&
    (!isAscii(target) || target.includes('#') || isRefusedInStrict(target.replace(/\?.*$/s, ''))))

/** Row 95: what our own proxies say of a peer. */
const ownHeader = 'x-spiffe-peer-id'

/** undefined: TCP; 'reject': refused before policy. */
export function viewHttp(request: OracleRequest, strict: boolean): HttpView | 'reject' | undefined {
  if (request.http === undefined && request.h2 === undefined) return undefined
  const parts = request.h2 === undefined ? partsOfHttp(request.http ?? {}) : partsOfH2(request.h2)
  if (parts === undefined || isRefused(parts) || (strict && isRefusedHere(parts))) return 'reject'
  const { method = '', hosts, target, headers } = parts
  const whole = target?.replace(/#.*$/s, '')
  const path = whole?.replace(/\?.*$/s, '')
  return {
    method,
    host: hosts[0],
    path,
    query: whole?.slice(path?.length) ?? '',
    // row 95: removed before the decision
    headers: headers.filter(([name]) => !name.startsWith('x-envoy-') && name !== ownHeader),
  }
}

/** `trustedHops` and `trustedProxies` of corpus/README.md; the socket peer where the header does not count. */
export function remoteAddress(
  request: OracleRequest,
  http: HttpView | undefined,
  mesh: Mesh,
  strict: boolean,
): string | undefined {
  if (request.remoteIp !== undefined) return request.remoteIp
  const peer = request.source?.ip
  const address = peer === undefined ? undefined : parseAddress(peer, strict)
  const trusted =
    !strict ||
    (address !== undefined && mesh.trustedProxies.some((block) => blockHolds(block, address, true)))
  if (http === undefined || mesh.trustedHops < 1 || !trusted) return peer
  const lines = http.headers
    .filter(([name]) => name === 'x-forwarded-for')
    .map(([, value]) => value)
  const entry = lines.join(',').split(',').at(-mesh.trustedHops)?.trim() ?? ''
  return parseAddress(entry, strict) === undefined ? peer : entry
}

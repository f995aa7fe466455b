// What is decided about: typed attributes, absence explicit. Whatever a request says of itself has been
// read in one way, or was refused.
import { type SpiffeId, trustDomainOf } from '../../spiffe/id.ts'
import type { Mesh } from '../language/mesh.ts'
import { type IpAddress, ipSet, parseAddress, unmapped, unmappedBlock } from './address.ts'
import { fieldOf } from './fields.ts'
import { type Host, readHost } from './host.ts'
import { readPath } from './path.ts'

/** Claims of a verified token, as JSON. */
export type Claims = Readonly<Record<string, unknown>>

/** The workload that serves: what its verified identity and its entry say of it, never a request. */
export interface Destination {
  readonly id: SpiffeId | undefined
  readonly namespace: string
  readonly labels: Readonly<Record<string, string>>
  readonly ip: IpAddress | undefined
  readonly port: number | undefined
}

export interface Request {
  /** the verified identity of the peer: a SPIFFE ID, or what passes for one (istio); undefined on plaintext */
  readonly source: string | undefined
  /** of the socket's peer */
  readonly sourceIp: IpAddress | undefined
  /** of the client, as a proxy in front says that is trusted */
  readonly remoteIp: IpAddress | undefined
  readonly destination: Destination
  readonly sni: string | undefined
  /** undefined on a TCP connection */
  readonly http: HttpAttributes | undefined
  /** undefined without a verified token */
  readonly claims: Claims | undefined
}

export interface HttpAttributes {
  readonly method: string
  /** normalised; what is forwarded, without query */
  readonly path: string
  /** every reading of the path that a DENY is compared with */
  readonly readings: readonly string[]
  /** the readings that an ALLOW has to match, each of them */
  readonly certain: readonly string[]
  /** with its question mark; empty when there is none */
  readonly query: string
  readonly host: Host | undefined
  /** names in lower case; values in their order, each field's by itself */
  readonly headers: Headers
}

/** The values of the fields of a name in lower case. */
export interface Headers {
  values(name: string): readonly string[]
  names(): readonly string[]
}

/** Refused before policy: malformed, ambiguous, too long, or a token that does not hold. */
export interface Rejection {
  readonly status: 400 | 401 | 403 | 414 | 431
  readonly reason: string
}

export function isRejection<T extends object>(value: T | Rejection): value is Rejection {
  return 'status' in value && 'reason' in value
}

export const reject = (status: Rejection['status'], reason: string): Rejection => ({
  status,
  reason,
})

const token = /^[!#$%&'*+.^_\x60|~0-9A-Za-z-]+$/
const optionalSpace = /^[ \t]+|[ \t]+$/g

const none: readonly string[] = []
export const noHeaders: Headers = { values: () => none, names: () => none }

/** What only a proxy may say: taken off before anything is decided, and never forwarded. */
export function isOurs(name: string): boolean {
  return name.startsWith('x-envoy-') || name === 'x-spiffe-peer-id'
}

/** Fields that are read once somebody looks at them. */
export type LateFields = () => readonly string[]

/** Names and values in turn, as a parser gave them. */
export function headersOf(fields: readonly string[] | LateFields): Headers {
  if (fields.length === 0 && typeof fields !== 'function') return noHeaders
  let table: Map<string, string[]> | undefined
  const tableOf = (): Map<string, string[]> => {
    const raw = typeof fields === 'function' ? fields() : fields
    const made = new Map<string, string[]>()
    for (let i = 0; i + 1 < raw.length; i += 2) {
      const name = (raw[i] ?? '').toLowerCase()
      if (isOurs(name)) continue
      const value = (raw[i + 1] ?? '').replace(optionalSpace, '')
      const known = made.get(name)
      if (known === undefined) made.set(name, [value])
      else known.push(value)
    }
    table = made
    return made
  }
  return {
    values: (name) => (table ?? tableOf()).get(name) ?? none,
    names: () => [...(table ?? tableOf()).keys()],
  }
}

/** A request line and header fields, as a parser gave them. */
export interface RawHttp {
  readonly method: string
  /** origin form or absolute form */
  readonly target: string
  /** `:authority` or Host; undefined when there is none (HTTP/1.0), or only among the fields */
  readonly host: string | undefined
  /** names and values in turn */
  readonly headers: readonly string[]
}

/** The same, of which nobody may want the fields. */
export interface ReadableHttp extends Omit<RawHttp, 'headers'> {
  readonly headers: readonly string[] | LateFields
}

const absolute = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#]*)(.*)$/

/** Where a request goes; in absolute form its authority outranks the Host field (RFC 9112 §3.2.2). */
export function placeOf(raw: Pick<ReadableHttp, 'target' | 'host' | 'headers'>): {
  readonly target: string
  readonly host: string | undefined
} {
  const { target, headers } = raw
  const fields = () => (typeof headers === 'function' ? headers() : headers)
  const host = raw.host ?? fieldOf(fields(), 'host')?.replace(optionalSpace, '')
  const match = absolute.exec(target)
  if (match === null) return { target, host }
  const rest = match[2] ?? ''
  return { target: rest.startsWith('/') ? rest : `/${rest}`, host: match[1] }
}

/** The attributes of an HTTP request; a Rejection when it cannot be read in one way only. */
export function readHttp(raw: ReadableHttp, mesh: Mesh): HttpAttributes | Rejection {
  const { method } = raw
  if (!token.test(method)) return reject(400, 'a malformed method')
  const place = placeOf(raw)
  const path = readPath(place.target, mesh)
  if (!path.ok) return reject(path.status, path.reason)
  const host = place.host === undefined ? undefined : readHost(place.host, mesh.profile)
  if (place.host !== undefined && host === undefined) {
    return reject(400, 'a host that is no plain name, address or port')
  }
  const { forwarded, readings, certain, query } = path
  const headers = headersOf(raw.headers)
  return { method, path: forwarded, readings, certain, query, host, headers }
}

/** An address as rules compare it: in strict `::ffff:10.1.1.1` is 10.1.1.1. */
export function readAddress(text: string, mesh: Mesh): IpAddress | undefined {
  const parsed = parseAddress(text)
  return parsed === undefined || mesh.profile === 'istio' ? parsed : unmapped(parsed)
}

/**
 * The client's address: `trustedHops` entries from the right of X-Forwarded-For when the peer may say so,
 * otherwise the peer's own. Too few entries or one that is no address: the peer's own.
 */
export function remoteAddress(
  peer: IpAddress | undefined,
  headers: Headers,
  mesh: Mesh,
): IpAddress | undefined {
  const { trustedHops, profile } = mesh
  if (trustedHops === 0) return peer
  if (profile === 'strict' && (peer === undefined || !proxyTrust(mesh)(peer))) return peer
  const entries = headers.values('x-forwarded-for').join(',').split(',')
  const entry = entries[entries.length - trustedHops]
  if (entry === undefined) return peer
  return readAddress(entry.trim(), mesh) ?? peer
}

const trusts = new WeakMap<Mesh, (address: IpAddress) => boolean>()

function proxyTrust(mesh: Mesh): (address: IpAddress) => boolean {
  const known = trusts.get(mesh)
  if (known !== undefined) return known
  const made = ipSet(mesh.trustedProxies.map(unmappedBlock))
  trusts.set(mesh, made)
  return made
}

/** The namespace of an identity of the form `/ns/NAMESPACE/sa/ACCOUNT`; `default` for others. */
export function namespaceOf(id: SpiffeId): string {
  const [, ns, namespace, sa, account, ...rest] = id
    .slice('spiffe://'.length + trustDomainOf(id).length)
    .split('/')
  if (ns !== 'ns' || sa !== 'sa' || account === undefined || rest.length > 0) return 'default'
  return namespace ?? 'default'
}

/** What a workload's identity says of it, with the labels that its entry has. */
export function destinationOf(
  id: SpiffeId,
  {
    port,
    ip,
    labels = {},
  }: {
    readonly port?: number
    readonly ip?: IpAddress
    readonly labels?: Readonly<Record<string, string>>
  },
): Destination {
  return { id, namespace: namespaceOf(id), labels, ip, port }
}

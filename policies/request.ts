// What is decided about: typed attributes, absence explicit.
import { pathOf, type SpiffeId } from '../spiffe/id.ts'
import { readPath } from './path.ts'

export interface Request {
  /** the verified identity of the peer; undefined without one */
  readonly source: SpiffeId | undefined
  readonly destination: {
    /** the identity that serves, never what a request says of it */
    readonly id: SpiffeId
    readonly port: number
  }
  /** undefined on a TCP connection */
  readonly http: HttpAttributes | undefined
}

export interface HttpAttributes {
  readonly method: string
  /** normalised; what is forwarded, without query */
  readonly path: string
  /** every reading of the path, `path` among them */
  readonly readings: readonly string[]
  readonly query: string
}

/** Refused before policy: malformed or ambiguous. */
export interface Rejection {
  readonly status: 400
  readonly reason: string
}

const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** The attributes of a request line; a Rejection when it cannot be read in one way only. */
export function readHttp(method: string, target: string): HttpAttributes | Rejection {
  if (!token.test(method)) return { status: 400, reason: 'a malformed method' }
  const path = readPath(target)
  if (!path.ok) return { status: 400, reason: path.reason }
  return { method, path: path.forwarded, readings: path.readings, query: path.query }
}

export function isRejection(value: HttpAttributes | Rejection): value is Rejection {
  return 'status' in value
}

/** The namespace of an identity of the form `/ns/NAMESPACE/sa/ACCOUNT`; `default` for others. */
export function namespaceOf(id: SpiffeId): string {
  const [, ns, namespace, sa, account, ...rest] = pathOf(id).split('/')
  if (ns !== 'ns' || sa !== 'sa' || account === undefined || rest.length > 0) return 'default'
  return namespace ?? 'default'
}

// One request from its raw attributes to its answer: read, authenticated, decided. What the embedded
// proxy, the decision socket and `castellan policy eval` have in common.
import type { IpAddress } from './attributes/address.ts'
import {
  type Claims,
  type Destination,
  type HttpAttributes,
  isRejection,
  type ReadableHttp,
  type Rejection,
  type Request,
  readHttp,
  remoteAddress,
} from './attributes/request.ts'
import type { Guard, PolicySet } from './compile.ts'
import type { Consents } from './consent.ts'
import { type Decision, decideBy } from './decide.ts'
import type { Authenticated } from './tokens/authenticate.ts'

/** What is known of a connection, whatever is asked on it. */
export interface Connected {
  readonly source: string | undefined
  readonly sourceIp: IpAddress | undefined
  /** the client's address, where it was derived already; it outranks header fields */
  readonly remoteIp?: IpAddress | undefined
  readonly destination: Destination
  readonly sni: string | undefined
}

export interface Decided {
  readonly kind: 'decided'
  readonly decision: Decision
  readonly request: Request
  readonly guard: Guard
}

export interface DecidedHttp extends Decided {
  readonly http: HttpAttributes
  /** what its token changes in what is forwarded */
  readonly authenticated: Authenticated
}

export interface Rejected {
  readonly kind: 'rejected'
  readonly rejection: Rejection
}

const rejected = (rejection: Rejection): Rejected => ({ kind: 'rejected', rejection })

export interface HttpAsked {
  readonly raw: ReadableHttp
  /** of a token that somebody else has verified; then the request's own are not looked at */
  readonly claims?: Claims | undefined
  /** of authorizers that were asked about it */
  readonly consents?: Consents | undefined
  /** milliseconds since 1970 */
  readonly now: number
}

const unchanged = { own: [], drops: [], dropsParameters: [], adds: [] }

/** Never throws. */
export function evaluateHttp(
  set: PolicySet,
  connected: Connected,
  { raw, claims, consents, now }: HttpAsked,
): DecidedHttp | Rejected {
  const http = readHttp(raw, set.mesh)
  if (isRejection(http)) return rejected(http)
  const { destination, source, sourceIp, sni } = connected
  const guard = set.guardOf(destination)
  const authenticated: Authenticated | Rejection =
    claims === undefined
      ? guard.authentication.authenticate(http, now)
      : { ...unchanged, claims: guard.authentication.readClaims(claims) }
  if (isRejection(authenticated)) return rejected(authenticated)
  const request: Request = {
    source,
    sourceIp,
    remoteIp: connected.remoteIp ?? remoteAddress(sourceIp, http.headers, set.mesh),
    destination,
    sni,
    http,
    claims: authenticated.claims,
  }
  return {
    kind: 'decided',
    decision: decideBy(guard, request, consents),
    request,
    guard,
    http,
    authenticated,
  }
}

/** The decision about a TCP connection. Never throws. */
export function evaluateTcp(set: PolicySet, connected: Connected): Decided {
  const { source, sourceIp, remoteIp = sourceIp, destination, sni } = connected
  const request: Request = {
    source,
    sourceIp,
    remoteIp,
    destination,
    sni,
    http: undefined,
    claims: undefined,
  }
  const guard = set.guardOf(destination)
  return { kind: 'decided', decision: decideBy(guard, request), request, guard }
}

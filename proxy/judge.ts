// One request at the door: who asks, for what, and whether it may pass.

import { destinationAt } from '../decisions/destination.ts'
import { exhaustedBy } from '../decisions/exhausted.ts'
import type { RawHttp, Request } from '../policies/attributes/request.ts'
import { readAddress } from '../policies/attributes/request.ts'
import type { PolicySet } from '../policies/compile.ts'
import type { Consents } from '../policies/consent.ts'
import {
  type Connected,
  type DecidedHttp,
  evaluateHttp,
  evaluateTcp,
  type Rejected,
} from '../policies/evaluate.ts'
import type { Backend } from '../policies/language/mesh.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Connection } from './connections.ts'
import type { Core } from './core.ts'
import type { Refusal } from './door.ts'

export interface Allowed {
  readonly kind: 'allowed'
  /** undefined for one in the clear */
  readonly peer: SpiffeId | undefined
  readonly decided: DecidedHttp
  /** the request as it was decided about */
  readonly raw: RawHttp
  readonly consents: Consents | undefined
  /** fields for the answer, names and values in turn */
  readonly downstream: readonly string[]
}

export type Verdict =
  | Allowed
  /** `refusal` is what an authorizer answered */
  | { readonly kind: 'denied'; readonly refusal?: Refusal }
  /** `retryAfter` in milliseconds */
  | { readonly kind: 'limited'; readonly retryAfter: number }
  | { readonly kind: 'refused'; readonly status: number; readonly reason: string }

/** What does not change while a connection lives, but for its peer. */
export interface Arrival {
  readonly connection: Connection
  readonly sourceAddress: string | undefined
  readonly sni: string | undefined
  /** the one at the workload */
  readonly port: number
  /** how the workload reads paths */
  readonly backend: Backend | undefined
}

type Source = Connected & { readonly source: SpiffeId | undefined }

function connectedOf(
  { identities, mesh }: Core,
  { connection, sourceAddress, sni, port }: Arrival,
): Source | undefined {
  const source = connection.peer()
  const identity = identities.current()
  if (identity === undefined) return undefined
  const { policies } = mesh.current()
  return {
    source,
    sourceIp: sourceAddress === undefined ? undefined : readAddress(sourceAddress, policies.mesh),
    destination: destinationAt(mesh, { id: identity.svid.id, port }),
    sni,
  }
}

/** A request as it stands, after the authorizers that were asked about it. */
export interface Asked {
  readonly raw: RawHttp
  readonly consents?: Consents | undefined
  readonly downstream?: readonly string[]
}

/** What was decided, not counted yet. */
export interface Considered {
  readonly asked: Asked
  readonly policies: PolicySet
  readonly connected: Source
  readonly result: DecidedHttp | Rejected
}

/** By the policies of now; undefined without an identity. Throws ERR_UNTRUSTED when the peer is not trusted (any more). */
export function consider(core: Core, arrival: Arrival, asked: Asked): Considered | undefined {
  const connected = connectedOf(core, arrival)
  if (connected === undefined) return undefined
  const policies = core.mesh.current().policies.behind(arrival.backend)
  const { raw, consents } = asked
  const result = evaluateHttp(policies, connected, { raw, consents, now: core.clock.now() })
  return { asked, policies, connected, result }
}

/** Counts what was decided. */
export function conclude(core: Core, considered: Considered | undefined): Verdict {
  if (considered === undefined) return { kind: 'denied' }
  const { asked, policies, connected, result } = considered
  if (result.kind === 'rejected') {
    const { status, reason } = result.rejection
    core.tally.reject(connected, result.rejection)
    return { kind: 'refused', status, reason }
  }
  const exhausted = exhaustedBy(core, result)
  if (!core.tally.count(policies, result, exhausted)) {
    return exhausted === undefined ? { kind: 'denied' } : { kind: 'limited', ...exhausted }
  }
  const { raw, consents, downstream = [] } = asked
  return { kind: 'allowed', peer: connected.source, decided: result, raw, consents, downstream }
}

/** The decision about a TCP connection. Throws ERR_UNTRUSTED. */
export function judgeTcp(core: Core, arrival: Arrival): Request | undefined {
  const connected = connectedOf(core, arrival)
  if (connected === undefined) return undefined
  const { policies } = core.mesh.current()
  const decided = evaluateTcp(policies, connected)
  const exhausted = exhaustedBy(core, decided)
  return core.tally.count(policies, decided, exhausted) ? decided.request : undefined
}

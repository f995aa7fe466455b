// What agents say of their nodes.
import type { SpiffeId } from '../../spiffe/id.ts'

/** A sidecar, or an agent that has the policies of its node. */
export interface EnforcementPoint {
  /** empty for the agent itself */
  readonly spiffeId: string
  readonly pid: number
  /** policy version in use, 0 before the first */
  readonly version: number
  /** why a later one was refused; empty when none was */
  readonly refusal: string
}

/** What an agent says of the policies on its node. */
export interface EnforcementRow {
  readonly agentId: SpiffeId
  /** who hears it */
  readonly replica: string
  readonly points: readonly EnforcementPoint[]
}

/** Where an identity serves a service. */
export interface ServiceEndpoint {
  readonly service: string
  readonly spiffeId: SpiffeId
  /** host:port */
  readonly address: string
}

/** What the proxies of an agent's node serve. */
export interface EndpointsRow {
  readonly agentId: SpiffeId
  readonly endpoints: readonly ServiceEndpoint[]
}

// What all listeners of one sidecar share.

import type { Mesh } from '../decisions/mesh.ts'
import type { Tally } from '../decisions/tally.ts'
import type { Buckets } from '../policies/limits.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Authorizer } from './authorizer.ts'
import type { Connections } from './connections.ts'
import type { Identities } from './identity.ts'
import type { Limits } from './limits.ts'

export interface Core {
  readonly identities: Identities
  readonly mesh: Mesh
  readonly connections: Connections
  readonly tally: Tally
  readonly log: Log
  readonly clock: Clock
  readonly limits: Limits
  /** in lower case: by which workloads are told who asks, and callers who answered */
  readonly identityHeader: string
  /** by the names of providers in CUSTOM policies */
  readonly authorizers: ReadonlyMap<string, Authorizer>
  /** how often callers have asked */
  readonly buckets: Buckets
}

/** A listener that was started. */
export interface Listener {
  readonly name: string
  readonly address: string
  readonly port: number
  /** Accepts nothing more and lets what is in flight finish. */
  stop(): void
  /** Ends what is left. */
  close(): Promise<void>
}

// The parts that the services stand on, as one value: made in main.ts, passed as an argument.
import type { Clock } from '../runtime/clock.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import type { Attested, NodeAttestor } from './attestors/attestor.ts'
import type { Authorities } from './authorities/slots.ts'
import type { Callers } from './callers.ts'
import type { Wanted } from './grants.ts'
import type { Delivered } from './issue.ts'
import type { Registry } from './registry.ts'
import type { Store } from './store/store.ts'

export interface Authority {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly store: Store
  readonly registry: Registry
  readonly authorities: Authorities
  readonly callers: Callers
  readonly attestors: ReadonlyMap<string, NodeAttestor>
  /** The whole procedure of `issue.ts` with this authority's rules. */
  issue(csr: Uint8Array, attested: Attested, wanted: Wanted): Promise<Delivered>
}

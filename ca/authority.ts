// The parts that the services stand on, as one value: made in main.ts, passed as an argument.
import type { Clock } from '../runtime/clock.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import type { Acknowledgements } from './acknowledgements.ts'
import type { Attested, NodeAttestor } from './attestors/attestor.ts'
import type { Authorities } from './authorities/authorities.ts'
import type { Callers } from './callers.ts'
import type { DownstreamAsked } from './downstream.ts'
import type { Endpoints } from './endpoints.ts'
import type { Enforcement } from './enforcement.ts'
import type { ForeignBundles } from './foreign-bundles.ts'
import type { Wanted, WantedToken } from './grants.ts'
import type { Delivered } from './issue.ts'
import type { IstioCallers } from './istio/callers.ts'
import type { PolicyTraces } from './policy-traces.ts'
import type { Registry } from './registry.ts'
import type { Revocation } from './revocation.ts'
import type { Store } from './store/store.ts'
import type { TokenPurpose, TokenSvid } from './token-svids.ts'

export interface Authority {
  readonly trustDomain: TrustDomain
  /** folder of the store and the sealed keys */
  readonly state: string
  readonly clock: Clock
  readonly store: Store
  readonly registry: Registry
  readonly authorities: Authorities
  readonly callers: Callers
  readonly revocation: Revocation
  readonly foreignBundles: ForeignBundles
  readonly acknowledgements: Acknowledgements
  readonly policyTraces: PolicyTraces
  readonly enforcement: Enforcement
  readonly endpoints: Endpoints
  /** undefined when Istio's certificate service is not configured */
  readonly istio: IstioCallers | undefined
  readonly attestors: ReadonlyMap<string, NodeAttestor>
  /** The whole procedure of `issue.ts` with this authority's rules. */
  issue(csr: Uint8Array, attested: Attested, wanted: Wanted): Promise<Delivered>
  /** The same for JWT- and WIT-SVIDs, `token-svids.ts`. */
  issueToken(purpose: TokenPurpose, attested: Attested, wanted: WantedToken): Promise<TokenSvid>
  /** The same for the CA certificate of an authority below this one, DER; `downstream.ts`. */
  issueDownstream(csr: Uint8Array, asked: DownstreamAsked): Promise<Uint8Array>
}

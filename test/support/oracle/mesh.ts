// The mesh a policy lives in: the keys of corpus/README.md with their defaults.
import type { PathNormalization } from './path.ts'

export type Backend = 'rfc3986' | 'servlet' | 'windows' | 'caseless'

export interface Mesh {
  readonly trustDomain: string
  readonly trustDomainAliases: readonly string[]
  readonly rootNamespace: string
  readonly defaultAction: 'allow' | 'deny'
  readonly pathNormalization: PathNormalization
  readonly backend: Backend
  readonly trustedHops: number
  /** CIDRs of socket peers; read in strict only */
  readonly trustedProxies: readonly string[]
}

/** As a mesh.yaml says it: whatever is absent has the default. */
export type OracleMesh = Partial<Mesh>

export const wholeMesh = (mesh: OracleMesh): Mesh => ({
  trustDomain: 'cluster.local',
  trustDomainAliases: [],
  rootNamespace: 'istio-system',
  defaultAction: 'allow',
  pathNormalization: 'base',
  backend: 'rfc3986',
  trustedHops: 0,
  trustedProxies: [],
  ...mesh,
})

/** Own trust domain and its aliases: what may stand for one another (§4.10). */
export const ownTrustDomains = (mesh: Mesh): readonly string[] => [
  ...new Set([mesh.trustDomain, ...mesh.trustDomainAliases]),
]

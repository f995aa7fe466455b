// The mesh that policies live in: what is the same for every workload of an installation. Keys and
// defaults are those of Istio's mesh configuration, as `castellan policy eval --mesh` reads them.
import { z } from 'zod'
import { type IpBlock, parseBlock } from '../attributes/address.ts'

/** strict: deny unless allowed, one reading only. istio: what Istio decides. */
export type Profile = 'strict' | 'istio'

/** authorization.md §5.1. */
export type PathNormalization = 'none' | 'base' | 'merge-slashes' | 'decode-and-merge-slashes'

/** How the program behind the proxy reads a path. */
export type Backend = 'rfc3986' | 'servlet' | 'windows' | 'caseless'

export interface Mesh {
  readonly profile: Profile
  readonly trustDomain: string
  readonly trustDomainAliases: readonly string[]
  /** its policies hold in every namespace */
  readonly rootNamespace: string
  /** istio, without an ALLOW policy in scope */
  readonly defaultAction: 'allow' | 'deny'
  /** istio; strict always decodes and merges */
  readonly pathNormalization: PathNormalization
  /** strict */
  readonly backend: Backend
  /** the remote address is this many entries from the right of X-Forwarded-For */
  readonly trustedHops: number
  /** strict: peers whose X-Forwarded-For counts at all */
  readonly trustedProxies: readonly IpBlock[]
}

const trustDomain = z
  .string()
  .regex(/^[a-z0-9._-]{1,255}$/, 'a trust domain has a-z, 0-9, dots, hyphens and underscores')

const block = z.string().transform((text, context) => {
  const parsed = parseBlock(text)
  if (parsed !== undefined) return parsed
  context.addIssue({ code: 'custom', message: `${JSON.stringify(text)} is no IP address or CIDR` })
  return z.NEVER
})

export const backend = z.enum(['rfc3986', 'servlet', 'windows', 'caseless'])

/** The file that `--mesh` names; every key may be left out. */
export const meshDocument = z.strictObject({
  trustDomain: trustDomain.default('cluster.local'),
  trustDomainAliases: z.array(trustDomain).max(64).default([]),
  rootNamespace: z.string().min(1).max(253).default('istio-system'),
  defaultAction: z.enum(['allow', 'deny']).default('allow'),
  pathNormalization: z
    .enum(['none', 'base', 'merge-slashes', 'decode-and-merge-slashes'])
    .default('base'),
  backend: backend.default('rfc3986'),
  trustedHops: z.int().min(0).max(64).default(0),
  trustedProxies: z.array(block).max(1024).default([]),
})

export const defaultMesh: Mesh = { profile: 'strict', ...meshDocument.parse({}) }

const others = new WeakMap<Mesh, Map<Backend, Mesh>>()

/** The same but for how the program behind one destination reads paths; the same value again each time. */
export function withBackend(mesh: Mesh, other: Backend): Mesh {
  if (mesh.backend === other) return mesh
  const made = others.get(mesh) ?? new Map<Backend, Mesh>()
  others.set(mesh, made)
  const kept = made.get(other) ?? { ...mesh, backend: other }
  made.set(other, kept)
  return kept
}

const known = new WeakMap<Mesh, readonly string[]>()

/** The own trust domain and its aliases, each once. */
export function trustDomainsOf(mesh: Mesh): readonly string[] {
  const kept = known.get(mesh)
  if (kept !== undefined) return kept
  const made = [...new Set([mesh.trustDomain, ...mesh.trustDomainAliases])]
  known.set(mesh, made)
  return made
}

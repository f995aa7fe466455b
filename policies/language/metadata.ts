// What every kind of document has in common: the group and version it is written in, its metadata, and
// which workloads it speaks of.
import { z } from 'zod'
import { labelKey, labelValue, listOf, name } from './words.ts'

export const istioVersions = ['security.istio.io/v1', 'security.istio.io/v1beta1'] as const
/** the superset: what is marked with it is refused in Istio's documents */
export const ownVersion = 'castellan.dev/v1'

/** names of linter rules, with commas between, that say nothing of this document */
export const excuse = 'castellan.dev/lint-ignore'

export const dryRunAnnotation = 'istio.io/dry-run'

// what a cluster writes into a document that is read back from it says nothing about decisions
const keptByCluster = {
  uid: z.string().optional(),
  resourceVersion: z.string().optional(),
  generation: z.number().optional(),
  creationTimestamp: z.string().nullish(),
  managedFields: z.array(z.unknown()).optional(),
  ownerReferences: z.array(z.unknown()).optional(),
  finalizers: z.array(z.string()).optional(),
}

export const metadata = z.strictObject({
  name,
  namespace: name.default('default'),
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  ...keptByCluster,
})

export const selector = z.strictObject({
  matchLabels: z.record(labelKey, labelValue).default({}),
})

const targetRef = z.strictObject({
  group: z.string().optional(),
  kind: z.enum(['Gateway', 'GatewayClass', 'Service', 'ServiceEntry']),
  name,
  namespace: z
    .string()
    .max(0, 'a target of another namespace is not accepted: leave namespace out')
    .optional(),
})

/** Whom a document speaks of; at most one of the three. */
export const whom = {
  selector: selector.optional(),
  targetRef: targetRef.optional(),
  targetRefs: listOf(targetRef, 16).optional(),
}

interface Whom {
  readonly selector?: unknown
  readonly targetRef?: unknown
  readonly targetRefs?: unknown
}

export function hasOneTarget({
  selector: labels,
  targetRef: one,
  targetRefs: many,
}: Whom): boolean {
  return [labels, one, many].filter((it) => it !== undefined).length <= 1
}

// Which workloads a document speaks of (authorization.md §4.11).

import type { SpiffeId } from '../spiffe/id.ts'
import type { Destination } from './attributes/request.ts'
import type { Mesh } from './language/mesh.ts'
import type { Labels } from './language/policy.ts'
import { principalOf } from './rules/identity.ts'
import { type Pattern, stringTest } from './rules/pattern.ts'

/** Whether a workload has all the labels. */
export function hasLabels(labels: Labels, selector: Labels | undefined): boolean {
  if (selector === undefined) return true
  for (const name in selector) if (labels[name] !== selector[name]) return false
  return true
}

interface Scoped {
  readonly namespace: string
  readonly selector: Labels | undefined
  readonly isElsewhere: boolean
}

/** Whether a document speaks of a destination by its namespace and labels. */
export function isInScope(
  { namespace, selector, isElsewhere }: Scoped,
  destination: Pick<Destination, 'namespace' | 'labels'>,
  { rootNamespace }: Mesh,
): boolean {
  if (isElsewhere) return false
  if (namespace !== rootNamespace && namespace !== destination.namespace) return false
  return hasLabels(destination.labels, selector)
}

/** What may name SPIFFE IDs instead of a namespace. */
export interface Targeted extends Scoped {
  readonly targets: readonly Pattern[] | undefined
}

function targetsHold({ targets }: Targeted, id: SpiffeId | undefined): boolean {
  return targets === undefined || (id !== undefined && stringTest(targets)(principalOf(id)))
}

/** With targets a document speaks of SPIFFE IDs, whatever their namespace. */
export function speaksOf(document: Targeted, destination: Destination, mesh: Mesh): boolean {
  if (document.targets === undefined) return isInScope(document, destination, mesh)
  if (document.isElsewhere || !hasLabels(destination.labels, document.selector)) return false
  return targetsHold(document, destination.id)
}

// What policies see of the workload behind this sidecar: its identity, the labels of its entry, its port.
import { type Destination, destinationOf } from '../policies/attributes/request.ts'
import type { Labels } from '../policies/language/policy.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Mesh, MeshState } from './mesh.ts'

// by mesh, identity and port, so that a destination's guard is found at once
const known = new WeakMap<Mesh, Map<string, Destination>>()

const noLabels: Labels = {}

/** The same value again until the labels change. */
export function destinationAt(
  mesh: Mesh,
  { id, port }: { readonly id: SpiffeId; readonly port: number },
): Destination {
  const ofMesh = known.get(mesh) ?? new Map<string, Destination>()
  known.set(mesh, ofMesh)
  const key = `${port} ${id}`
  const before = ofMesh.get(key)
  const labels = labelsIn(mesh.current(), id)
  if (before !== undefined && isSame(before.labels, labels)) return before
  const made = destinationOf(id, { port, labels })
  ofMesh.set(key, made)
  return made
}

export function labelsIn({ labels }: Pick<MeshState, 'labels'>, id: SpiffeId): Labels {
  return labels.get(id) ?? noLabels
}

function isSame(one: Labels, other: Labels): boolean {
  if (one === other) return true
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length && names.every((name) => one[name] === other[name])
  )
}

// Whether a destination takes plaintext, as PeerAuthentication says: the one for the workload before the
// one for its namespace before the one for the mesh; of a workload's, the mode of the port first.
import type { Destination } from './attributes/request.ts'
import type { Mesh } from './language/mesh.ts'
import type { PeerAuthentication } from './language/read.ts'
import { isInScope } from './scope.ts'

type Mode = NonNullable<PeerAuthentication['spec']['mtls']>['mode']

interface Layers {
  readonly workload: readonly PeerAuthentication[]
  readonly namespace: readonly PeerAuthentication[]
  readonly mesh: readonly PeerAuthentication[]
}

function layersOf(
  documents: readonly PeerAuthentication[],
  destination: Destination,
  mesh: Mesh,
): Layers {
  const inScope = documents.filter((it) => isInScope(it, destination, mesh))
  const plain = inScope.filter(({ selector }) => selector === undefined)
  return {
    // a selector in the root namespace reaches into all of them
    workload: inScope.filter(({ selector }) => selector !== undefined),
    namespace: plain.filter(({ namespace }) => namespace !== mesh.rootNamespace),
    mesh: plain.filter(({ namespace }) => namespace === mesh.rootNamespace),
  }
}

/** Two of one layer that differ: the stricter one holds. */
function strictest(modes: readonly (Mode | undefined)[]): Mode | undefined {
  const order: readonly Mode[] = ['STRICT', 'PERMISSIVE', 'DISABLE']
  return order.find((mode) => modes.includes(mode))
}

const modesOf = (layer: readonly PeerAuthentication[]) => layer.map(({ spec }) => spec.mtls?.mode)

/** Says of a port whether only mutual TLS is taken there. */
export function mutualTlsDemand(
  documents: readonly PeerAuthentication[],
  destination: Destination,
  mesh: Mesh,
): (port: number | undefined) => boolean {
  const { workload, namespace, mesh: whole } = layersOf(documents, destination, mesh)
  if (workload.length + namespace.length + whole.length === 0) return () => false
  const general =
    strictest(modesOf(workload)) ?? strictest(modesOf(namespace)) ?? strictest(modesOf(whole))
  return (port) => {
    const ofPort =
      port === undefined
        ? undefined
        : strictest(workload.map(({ spec }) => spec.portLevelMtls?.[String(port)]?.mode))
    return (ofPort ?? general) === 'STRICT'
  }
}

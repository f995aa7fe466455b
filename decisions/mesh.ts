// What the agent says about the mesh: policies and endpoints, replaced whole, never mixed.
import { noPolicies, type PolicySet } from '../policies/compile.ts'
import type { Labels } from '../policies/language/policy.ts'
import type { ServiceEndpoint } from '../proxy-spec/endpoint.ts'
import { createTopic } from '../runtime/lifecycle.ts'
import { type DenyList, denyNothing } from '../spiffe/deny-list.ts'
import type { SpiffeId } from '../spiffe/id.ts'

export interface MeshState {
  readonly policies: PolicySet
  /** by the name of the service */
  readonly endpoints: ReadonlyMap<string, readonly ServiceEndpoint[]>
  /** peers that are refused whatever they show */
  readonly denyList: DenyList
  /** of this sidecar's own identities, those that have some */
  readonly labels: ReadonlyMap<SpiffeId, Labels>
}

export interface Mesh {
  /** before the first state there are no policies, and so everything is denied */
  current(): MeshState
  put(state: MeshState): void
  /** called after each change */
  subscribe(listener: (state: MeshState) => void): Disposable
}

export function createMesh(): Mesh {
  const topic = createTopic<MeshState>()
  let current: MeshState = {
    policies: noPolicies,
    endpoints: new Map(),
    denyList: denyNothing,
    labels: new Map(),
  }
  return {
    current: () => current,
    put(state) {
      current = state
      topic.publish(state)
    },
    subscribe: (listener) => topic.subscribe(listener),
  }
}

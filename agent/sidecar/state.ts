// The part of the mesh that one sidecar is told: what concerns the identities that its process may have.
import { namespaceOf } from '../../policies/attributes/request.ts'
import type { Labels } from '../../policies/language/policy.ts'
import { scopedTo } from '../../policies/language/scope.ts'
import type { ServiceEndpoint } from '../../proxy-spec/endpoint.ts'
import { addressText } from '../../runtime/config.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import type { AgentEntry } from '../entries.ts'
import type { Knowledge } from '../knowledge.ts'

export interface Mesh {
  readonly knowledge: Pick<Knowledge, 'policies' | 'revocation'>
  readonly endpoints: ReadonlyMap<string, readonly ServiceEndpoint[]>
}

const none: readonly never[] = []

/** By identity; where several entries give the same one, the oldest has the last word on each label. */
export function labelsOf(entries: readonly AgentEntry[]) {
  const byId = new Map<SpiffeId, Labels>()
  for (const { spiffeId, labels } of entries) {
    const all = { ...labels, ...byId.get(spiffeId) }
    if (Object.keys(all).length > 0) byId.set(spiffeId, all)
  }
  return [...byId].map(([spiffeId, all]) => ({ spiffeId, labels: sorted(all) }))
}

/** The same labels are the same text, in whatever order they were written. */
function sorted(labels: Labels): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** The part of the mesh that concerns the identities of these entries, without version. */
export function stateFor(entries: readonly AgentEntry[], { knowledge, endpoints: known }: Mesh) {
  const set = knowledge.policies()
  const rootNamespace = set?.rootNamespace ?? ''
  const ids = entries.map(({ spiffeId }) => spiffeId)
  const namespaces = new Set([rootNamespace, ...ids.map(namespaceOf)])
  const files = scopedTo(set?.files ?? none, namespaces, ids)
  const endpoints = [...known].map(([service, all]) => ({
    service,
    addresses: all.map(addressText),
    spiffeIds: all.map(({ id }) => id ?? ''),
  }))
  const { message } = knowledge.revocation()
  // without the reasons: who subscribes is any workload
  const rules = (message?.rules ?? []).map(({ id, target, expiresAt }) => ({
    ...{ id, target, expiresAt },
  }))
  const policies = { version: set?.version ?? 0n, files, rootNamespace }
  return { policies, endpoints, denyList: { rules }, labels: labelsOf(entries) }
}

/** The same state is the same text. */
export function stateText(state: ReturnType<typeof stateFor>): string {
  return JSON.stringify(state, (_, part: unknown) =>
    typeof part === 'bigint' ? String(part) : part,
  )
}

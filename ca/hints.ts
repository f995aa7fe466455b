// Hints tell a workload's identities apart, so two that one workload may have must not share one: SPIRE's
// agent then drops an identity without a word.
import type { EntryRow, SelectorRow } from './store/model.ts'

/** Selectors of which a workload has one value: two entries that differ there have no workload in common. */
const singleValued = new Set([
  ...['uid', 'user', 'gid', 'group', 'path', 'sha256'].map((name) => `unix:${name}`),
  ...['ns', 'sa', 'pod-name', 'pod-uid', 'node-name', 'container-name'].map(
    (name) => `k8s:${name}`,
  ),
])

function valuesOf(selectors: readonly SelectorRow[]): Map<string, string> {
  const values = new Map<string, string>()
  for (const { type, value } of selectors) {
    const colon = value.indexOf(':')
    const name = `${type}:${value.slice(0, colon)}`
    if (colon > 0 && singleValued.has(name)) values.set(name, value.slice(colon + 1))
  }
  return values
}

/** Whether some workload may have both entries and could not tell them apart by their hints. */
export function hintsCollide(one: EntryRow, other: EntryRow): boolean {
  if (one.hint === '' || one.hint !== other.hint) return false
  if (one.id === other.id || one.parentId !== other.parentId) return false
  const values = valuesOf(other.selectors)
  for (const [name, value] of valuesOf(one.selectors)) {
    if (values.has(name) && values.get(name) !== value) return false
  }
  return true
}

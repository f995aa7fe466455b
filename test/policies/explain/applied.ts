// What an operator does with an offered change: edits the documents, step by step. Written from what the
// steps say, not from how the engine applies them.
import type { Edit } from '../../../policies/explain/edit.ts'
import { documentOf } from '../../../policies/explain/exact.ts'
import type { RandomDocument } from './random.ts'

// JSON, walked without types as a person's editor does
type Json = ReturnType<typeof JSON.parse>

function isIts({ metadata }: Json, { policy }: Edit): boolean {
  return metadata.name === policy.name && metadata.namespace === policy.namespace
}

function edit(document: Json, step: Exclude<Edit, { do: 'create' }>): Json | undefined {
  if (step.path.length === 0) return undefined
  const copy: Json = structuredClone(document)
  const parents = step.path.slice(0, -1)
  const last = step.path.at(-1) ?? ''
  const inside = parents.reduce((it: Json, name) => it[name], copy)
  if (step.do === 'add') inside[last] = [...(inside[last] ?? []), ...step.values]
  if (step.do === 'take') {
    const gone = step.values.map((it) => JSON.stringify(it))
    inside[last] = inside[last].filter((it: Json) => !gone.includes(JSON.stringify(it)))
  }
  if (step.do === 'drop' && Array.isArray(inside)) inside.splice(Number(last), 1)
  else if (step.do === 'drop') delete inside[last]
  return copy
}

export function applied(documents: readonly RandomDocument[], edits: readonly Edit[]): Json[] {
  let now: Json[] = [...documents]
  for (const step of edits) {
    if (step.do === 'create') {
      now.push(documentOf(step.policy))
      continue
    }
    now = now.flatMap((it) => (isIts(it, step) ? (edit(it, step) ?? []) : [it]))
  }
  return now
}

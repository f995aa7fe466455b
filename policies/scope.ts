// What a workload may see of the policies: the documents of its own namespaces and of the root
// namespace. Others are blanked out line by line, so that places in explanations stay right.
import { parseAllDocuments } from 'yaml'
import { readDocuments } from '../documents/yaml.ts'
import type { PolicyText } from './read.ts'
import { policyDocument } from './schema.ts'

function blanked(text: string, from: number, to: number): string {
  return text.slice(0, from) + text.slice(from, to).replace(/[^\n]/g, '') + text.slice(to)
}

/** `files` have been read before; a document that concerns none of `namespaces` leaves empty lines. */
export function scopedTo(
  files: readonly PolicyText[],
  namespaces: ReadonlySet<string>,
): PolicyText[] {
  return files.flatMap(({ name, text }) => {
    const values = readDocuments(text, name, policyDocument, 'ERR_POLICY')
    const parsed = parseAllDocuments(text)
    const documents = Array.isArray(parsed)
      ? parsed.filter(({ contents }) => contents !== null)
      : []
    let kept = text
    let count = 0
    for (const [i, { range }] of documents.entries()) {
      const namespace = values[i]?.value.metadata.namespace
      if (namespace !== undefined && namespaces.has(namespace)) count++
      else kept = blanked(kept, range[0], range[2])
    }
    return count === 0 ? [] : [{ name, text: kept }]
  })
}

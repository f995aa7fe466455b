// What a workload may see of the policies: the documents of its own namespaces and of the root
// namespace. Others are blanked out in place, so that lines in explanations stay right.
import { readDocuments } from '../documents/yaml.ts'
import type { PolicyText } from './read.ts'
import { policyDocument } from './schema.ts'

// a document marker stays a marker wherever it stands at the start of a line
const marker = /^(?:---|\.\.\.)(?=\s|$)/

/** Everything but line ends, the byte order mark and document markers becomes a space. */
function blanked(text: string): string {
  return text
    .split('\n')
    .map((line) => {
      const kept = marker.exec(line)?.[0] ?? ''
      return kept + line.slice(kept.length).replace(/[^\r\uFEFF]/g, ' ')
    })
    .join('\n')
}

/** `files` have been read before; a document that concerns none of `namespaces` leaves blank lines. */
export function scopedTo(
  files: readonly PolicyText[],
  namespaces: ReadonlySet<string>,
): PolicyText[] {
  return files.flatMap(({ name, text }) => {
    const visible = readDocuments(text, name, policyDocument, 'ERR_POLICY').filter(({ value }) =>
      namespaces.has(value.metadata.namespace),
    )
    let scoped = ''
    let end = 0
    for (const { range } of visible) {
      scoped += blanked(text.slice(end, range[0])) + text.slice(...range)
      end = range[1]
    }
    return visible.length === 0 ? [] : [{ name, text: scoped + blanked(text.slice(end)) }]
  })
}

// What a workload may see of the policies: the documents of its own namespaces and of the root namespace, and
// those that target one of its identities. Others are blanked out in place, so that lines in explanations
// stay right.
import { readDocuments } from '../../documents/yaml.ts'
import type { SpiffeId } from '../../spiffe/id.ts'
import { principalOf } from '../rules/identity.ts'
import { patternOf, stringTest } from '../rules/pattern.ts'
import { type PolicyDocument, type PolicyText, policyDocument } from './read.ts'

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

interface Seer {
  readonly namespaces: ReadonlySet<string>
  readonly ids: readonly SpiffeId[]
}

interface Placed {
  readonly range: readonly [from: number, to: number]
  readonly concerns: (seer: Seer) => boolean
}

/** Documents with targets speak of SPIFFE IDs, whatever their namespace. */
function concernsOf({ metadata: { namespace }, spec }: PolicyDocument): Placed['concerns'] {
  const targets = 'targets' in spec ? spec.targets : undefined
  if (targets === undefined) return ({ namespaces }) => namespaces.has(namespace)
  const isTarget = stringTest(targets.map((text) => patternOf(principalOf(text))))
  return ({ ids }) => ids.some((id) => isTarget(principalOf(id)))
}

function placesOf({ name, text }: PolicyText): Placed[] {
  return readDocuments(text, name, policyDocument, 'ERR_POLICY').map(({ value, range }) => ({
    range,
    concerns: concernsOf(value),
  }))
}

// many ask about the same files: they are read once
const known = new WeakMap<readonly PolicyText[], readonly (readonly Placed[])[]>()

/** `files` have been read before; a document that concerns none of the namespaces and IDs leaves blank lines. */
export function scopedTo(
  files: readonly PolicyText[],
  namespaces: ReadonlySet<string>,
  ids: readonly SpiffeId[] = [],
): PolicyText[] {
  const seer: Seer = { namespaces, ids }
  const all = known.get(files) ?? files.map(placesOf)
  known.set(files, all)
  return files.flatMap(({ name, text }, i) => {
    const visible = (all[i] ?? []).filter(({ concerns }) => concerns(seer))
    let scoped = ''
    let end = 0
    for (const { range } of visible) {
      scoped += blanked(text.slice(end, range[0])) + text.slice(...range)
      end = range[1]
    }
    return visible.length === 0 ? [] : [{ name, text: scoped + blanked(text.slice(end)) }]
  })
}

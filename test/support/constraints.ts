// What vectors of name constraints are made of: rows, each tried at an intermediate and at the root.
import type { LeafChoices } from '../../certs-dev/authority.ts'
import { distinguishedName } from '../../certs-dev/certificate.ts'
import { nameConstraints, type Subtrees, subjectAltName } from '../../certs-dev/extensions.ts'
import { type Difference, type Vector, vector } from './vectors.ts'

const constrained = (subtrees: Subtrees) => ({
  extensions: { nameConstraints: nameConstraints(subtrees) },
})
export const named = (...names: readonly Uint8Array[]) => ({
  extensions: { subjectAltName: subjectAltName(names, { critical: true }) },
})
export const called = (
  ...attributes: readonly (readonly [string, string])[]
): Partial<LeafChoices> => ({
  subject: distinguishedName(...attributes),
})

export const excluded = (kind: string) => `an excluded ${kind} name under name constraints`
export const unpermitted = (kind: string) =>
  `a ${kind} name that is not permitted under name constraints`

export type Row = readonly [
  name: string,
  subtrees: Subtrees,
  own: Partial<LeafChoices>,
  reason: string | undefined,
  difference?: Difference,
]

export const permits = (...permitted: readonly Uint8Array[]): Subtrees => ({ permitted })
export const excludes = (...bases: readonly Uint8Array[]): Subtrees => ({ excluded: bases })

/** One vector per row and place of the constraint. */
export const atBothLevels = (rows: readonly Row[]): Vector[] => [
  ...rows.map(([name, subtrees, own, ...rest]) =>
    vector(`${name} (intermediate)`, { intermediate: constrained(subtrees), leaf: own }, ...rest),
  ),
  ...rows.map(([name, subtrees, own, ...rest]) => {
    // the root's directory constraints bind the intermediate, too
    const intermediate = { subject: distinguishedName(['2.5.4.10', 'Example']) }
    return vector(
      `${name} (root)`,
      { root: constrained(subtrees), intermediate, leaf: own },
      ...rest,
    )
  }),
]

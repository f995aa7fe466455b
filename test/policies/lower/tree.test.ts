// Trees, one after the other.
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { header, text } from '../../../policies/lower/predicate.ts'
import { followedBy, type Tree, type TreeAction } from '../../../policies/lower/tree.ts'
import { treeVerdict } from '../../support/lowered-verdict.ts'

const names = ['x', 'y'] as const
const values = ['a', 'b', 'c'] as const

const end = (action: TreeAction): Tree => ({ kind: 'end', action, name: action })

/** Of lists of so much, at most so deep. */
const treeOf = (lists: TreeAction[], depth: number): fc.Arbitrary<Tree> => {
  const ends = fc.constantFrom(end('ALLOW'), end('DENY'))
  if (depth === 0) return ends
  const inner = treeOf(lists, depth - 1)
  const name = fc.constantFrom(...names)
  const value = fc.constantFrom(...values)
  const list = fc
    .tuple(fc.constantFrom(...lists), name, value, inner)
    .map(([action, input, wanted, otherwise]): Tree => {
      const when = text(header(input), 'exact', wanted)
      return { kind: 'list', action, rules: [{ name: 'rule', when }], otherwise }
    })
  const map = fc
    .tuple(name, fc.uniqueArray(fc.tuple(value, inner), { selector: ([key]) => key }), inner)
    .map(
      ([input, branches, otherwise]): Tree => ({
        ...{ kind: 'map', how: 'exact', input: header(input) },
        ...{ branches: new Map(branches), otherwise },
      }),
    )
  return fc.oneof(ends, list, map)
}

const everyRequest = [undefined, ...values].flatMap((x) =>
  [undefined, ...values].map((y) => ({
    ...{ uris: [], directSourceIp: undefined, sourceIp: undefined, destinationIp: undefined },
    ...{ destinationPort: undefined, serverName: undefined },
    headers: [
      ...(x === undefined ? [] : [['x', x] as const]),
      ...(y === undefined ? [] : [['y', y] as const]),
    ],
  })),
)

it('what is followed by another allows what both allow', () => {
  fc.assert(
    fc.property(treeOf(['DENY'], 3), treeOf(['ALLOW', 'DENY'], 3), (first, next) => {
      const both = followedBy(first, next)
      for (const request of everyRequest) {
        const [a, b] = [first, next].map((it) => treeVerdict(it, request).isAllowed)
        expect(treeVerdict(both, request).isAllowed).toBe(a && b)
      }
    }),
  )
})

it('what has rules that allow cannot be followed', () => {
  const when = text(header('x'), 'exact', 'a')
  const list: Tree = {
    ...{ kind: 'list', action: 'ALLOW', rules: [{ name: 'rule', when }] },
    otherwise: end('DENY'),
  }
  expect(() => followedBy(list, end('DENY'))).toThrow(TypeError)
})

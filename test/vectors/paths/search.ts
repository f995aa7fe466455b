// Path vectors: finding the path - order, loops, cross-signed CAs, several roots.
import { type DevCa, newKeys } from '../../../certs-dev/authority.ts'
import { ca, leaf, now, type Vector } from '../../support/vectors.ts'

type Built = Pick<Vector, 'chain' | 'roots' | 'reason'>

function twoRootsOfOneName(trusted: 'both' | 'wrong' | 'both reversed'): Built {
  const right = ca('root')
  const wrong = ca('root')
  const roots = {
    both: [wrong, right],
    'both reversed': [right, wrong],
    wrong: [wrong],
  }[trusted].map((root) => root.certificate)
  return {
    chain: leaf(ca('a', { parent: right })),
    roots,
    reason: trusted === 'wrong' ? 'a wrong signature' : undefined,
  }
}

function ladder(count: number): { readonly root: DevCa; readonly chain: readonly Buffer[] } {
  const root = ca('root')
  const last = Array.from({ length: count }, (_, i) => `ca ${i}`).reduce(
    (parent, name) => ca(name, { parent }),
    root,
  )
  return { root, chain: leaf(last) }
}

function inAnyOrder(reorder: (rest: readonly Buffer[]) => readonly Buffer[]): Built {
  const { root, chain } = ladder(4)
  return {
    chain: [...chain.slice(0, 1), ...reorder(chain.slice(1))],
    roots: [root.certificate],
    reason: undefined,
  }
}

/** a signed by b and b signed by a; `anchored` puts a root above b as well. */
function loop(anchored: boolean): Built {
  const root = ca('root')
  const keys = { a: newKeys(), b: newKeys() }
  const loopA = ca('a', { keys: keys.a })
  const loopB = ca('b', { keys: keys.b, parent: loopA })
  const closing = ca('a', { keys: keys.a, parent: loopB })
  const way = anchored ? [ca('b', { keys: keys.b, parent: root }).certificate] : []
  return {
    chain: [...leaf(closing).slice(0, 1), closing.certificate, loopB.certificate, ...way],
    roots: [root.certificate],
    reason: anchored ? undefined : 'no path to a root of the bundle',
  }
}

/** One CA key certified by two roots; only the second is in the bundle, or its way has `trouble`. */
function crossSigned(trusted: 'old' | 'new', trouble = false): Built {
  const keys = newKeys()
  const roots = { old: ca('old root'), new: ca('new root') }
  const byOld = ca('ca', { keys, parent: roots.old })
  const byNew = ca('ca', { keys, parent: roots.new, ...(trouble && { notAfter: now - 1000 }) })
  return {
    chain: [...leaf(byOld), byNew.certificate],
    roots: [roots[trusted].certificate],
    reason: trouble ? 'issuer 1: expired at' : undefined,
  }
}

/** The expired way comes first, the good one second. */
function secondWay(): Built {
  const keys = newKeys()
  const root = ca('root')
  const expired = ca('ca', { keys, parent: root, notAfter: now - 1000 })
  const good = ca('ca', { keys, parent: root })
  return {
    chain: [...leaf(expired), good.certificate],
    roots: [root.certificate],
    reason: undefined,
  }
}

/** Eight CAs of one name and one key, each signed by every other: only a bound ends the search. */
function maze(): Built {
  const keys = newKeys()
  const first = ca('maze', { keys })
  const chain = Array.from({ length: 8 }, () => ca('maze', { keys, parent: first }).certificate)
  return {
    chain: [...leaf(first), ...chain],
    roots: [ca('root').certificate],
    reason: 'no path to a root of the bundle',
  }
}

function withRoot(): Built {
  const { root, chain } = ladder(2)
  return { chain: [...chain, root.certificate], roots: [root.certificate], reason: undefined }
}

function intermediateAsAnchor(): Built {
  const { chain } = ladder(2)
  return { chain: chain.slice(0, 2), roots: chain.slice(2), reason: undefined }
}

function missing(): Built {
  const { root, chain } = ladder(2)
  return {
    chain: chain.slice(0, 2),
    roots: [root.certificate],
    reason: 'no path to a root of the bundle',
  }
}

function strangers(): Built {
  const { root, chain } = ladder(1)
  const others = [ca('x'), ca('y', { parent: ca('z') })].map((it) => it.certificate)
  return { chain: [...chain, ...others], roots: [root.certificate], reason: undefined }
}

function selfSigned(): Built {
  const keys = newKeys()
  const own = ca('root', { keys })
  return {
    chain: leaf(own),
    roots: [ca('another').certificate],
    reason: 'no path to a root of the bundle',
  }
}

function direct(): Built {
  const root = ca('root')
  return { chain: leaf(root), roots: [root.certificate], reason: undefined }
}

const built: Readonly<Record<string, Built>> = {
  'a leaf directly under the root': direct(),
  'two roots of one name, the right one second': twoRootsOfOneName('both'),
  'two roots of one name, the right one first': twoRootsOfOneName('both reversed'),
  'a root of the same name with another key': twoRootsOfOneName('wrong'),
  'intermediates in reverse': inAnyOrder((rest) => rest.toReversed()),
  'intermediates mixed': inAnyOrder(([a, b, c, d]) =>
    [c, a, d, b].filter((it) => it !== undefined),
  ),
  'intermediates twice': inAnyOrder((rest) => [...rest, ...rest]),
  'an unanchored loop': loop(false),
  'cross-signed, the old root trusted': crossSigned('old'),
  'cross-signed, the trusted way expired': crossSigned('new', true),
  'an expired way before a good one': secondWay(),
  'a maze of cross-signed CAs': maze(),
  'the root in the chain': withRoot(),
  'an intermediate that is missing': missing(),
  'intermediates that belong to nothing': strangers(),
  'a leaf under a root nobody trusts': selfSigned(),
  'no root at all': { ...direct(), roots: [], reason: 'no path to a root of the bundle' },
}

const noWayBack = {
  openssl: 'reject',
  why: 'OpenSSL does not go back after choosing an issuer that leads nowhere',
} as const

const different: readonly Vector[] = [
  { name: 'a loop with a way out', ...loop(true), difference: noWayBack },
  { name: 'cross-signed, the new root trusted', ...crossSigned('new'), difference: noWayBack },
  {
    name: 'an intermediate as trust anchor',
    ...intermediateAsAnchor(),
    difference: {
      openssl: 'reject',
      why: 'without -partial_chain only a self-signed certificate ends a path',
    },
  },
]

export const searchVectors: readonly Vector[] = [
  ...Object.entries(built).map(([name, it]) => ({ name, ...it })),
  ...different,
]

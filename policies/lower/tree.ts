// Named predicates as a tree that is walked from its root: callers are looked up, paths are looked up, and
// what cannot be is asked one after the other. Every walk ends in an action: nothing hangs on what a proxy
// does when an inner part matches nothing, which differs between versions of Envoy.
import { assume, type Key, keysOf } from './assume.ts'
import { header, type Input, isAlways, isNever, type Predicate, peer } from './predicate.ts'

export interface Named {
  /** `ns[NS]-policy[NAME]-rule[I]` */
  readonly name: string
  readonly when: Predicate
}

export type TreeAction = 'ALLOW' | 'DENY'

export type Tree =
  | { readonly kind: 'end'; readonly action: TreeAction; readonly name: string }
  | {
      readonly kind: 'list'
      /** of the rules, one of which holds */
      readonly action: TreeAction
      readonly rules: readonly Named[]
      readonly otherwise: Tree
    }
  | {
      readonly kind: 'map'
      /** prefix: the longest one counts */
      readonly how: Key['how']
      readonly input: Input
      readonly branches: ReadonlyMap<string, Tree>
      readonly otherwise: Tree
    }

/** Both, one after the other: what the first lets pass the next one looks at. */
export function followedBy(first: Tree, next: Tree): Tree {
  switch (first.kind) {
    case 'end':
      return first.action === 'ALLOW' ? next : first
    case 'list':
      // a rule that allows would need a way on of its own
      if (first.action === 'ALLOW') throw new TypeError('only what denies can be followed')
      return { ...first, otherwise: followedBy(first.otherwise, next) }
    case 'map': {
      const branches = [...first.branches].map(([key, it]) => [key, followedBy(it, next)] as const)
      return {
        ...first,
        branches: new Map(branches),
        otherwise: followedBy(first.otherwise, next),
      }
    }
  }
}

// so many predicates are asked as fast as a path is looked up
const few = 8
const path = header(':path')

/** What a tree is made with: what its rules mean, and what happens when none holds. */
export interface Ends {
  readonly action: TreeAction
  readonly otherwise: Tree
}

function listOf(rules: readonly Named[], { action, otherwise }: Ends): Tree {
  const asked: Named[] = []
  for (const rule of rules) {
    if (isNever(rule.when)) continue
    if (isAlways(rule.when)) {
      const end: Tree = { kind: 'end', action, name: rule.name }
      return asked.length === 0 ? end : { kind: 'list', action, rules: asked, otherwise: end }
    }
    asked.push(rule)
  }
  return asked.length === 0 ? otherwise : { kind: 'list', action, rules: asked, otherwise }
}

const assumed = (rules: Iterable<Named>, input: Input, key: Key): Named[] =>
  [...rules].map((rule) => ({ ...rule, when: assume(rule.when, input, key) }))

function addTo<T>(map: Map<string, Set<T>>, key: string, value: T): void {
  const known = map.get(key)
  if (known === undefined) map.set(key, new Set([value]))
  else known.add(value)
}

interface Keyed {
  readonly rule: Named
  readonly keys: readonly Key[]
}

/** Rules that have keys, and those that may hold for any value. */
function sorted(rules: readonly Named[], input: Input, onlyExact: boolean) {
  const [keyed, others]: [Keyed[], Named[]] = [[], []]
  for (const rule of rules) {
    const keys = keysOf(rule.when, input)
    const isKeyed = keys?.every(({ how }) => how === 'exact' || !onlyExact)
    if (keys !== undefined && isKeyed) keyed.push({ rule, keys })
    else others.push(rule)
  }
  return { keyed, others }
}

interface Paths {
  readonly exact: ReadonlyMap<string, ReadonlySet<Named>>
  readonly prefix: ReadonlyMap<string, ReadonlySet<Named>>
}

function* beginningsOf(text: string): Generator<string> {
  for (let i = 1; i <= text.length; i++) yield text.slice(0, i)
}

/** Under each key every rule that may hold there: a longer prefix hides the shorter ones. */
function pathsOf(keyed: readonly Keyed[]): Paths {
  const exact = new Map<string, Set<Named>>()
  const prefix = new Map<string, Set<Named>>()
  for (const { rule, keys } of keyed) {
    for (const { how, text } of keys) addTo(how === 'exact' ? exact : prefix, text, rule)
  }
  const inheriting = (own: ReadonlyMap<string, ReadonlySet<Named>>) =>
    new Map(
      [...own].map(([text, rules]) => {
        const found = new Set(rules)
        for (const beginning of beginningsOf(text)) {
          for (const rule of prefix.get(beginning) ?? []) found.add(rule)
        }
        return [text, found] as const
      }),
    )
  return { exact: inheriting(exact), prefix: inheriting(prefix) }
}

function mapOf(
  { how, input }: { readonly how: Key['how']; readonly input: Input },
  rules: ReadonlyMap<string, ReadonlySet<Named>>,
  { action, otherwise }: Ends,
): Tree {
  const branches = new Map<string, Tree>()
  for (const [text, its] of rules) {
    const left = assumed(its, input, { how, text })
    branches.set(text, listOf(left, { action, otherwise: bare(otherwise) }))
  }
  return branches.size === 0 ? otherwise : { kind: 'map', how, input, branches, otherwise }
}

/** Where a walk ends that no rule has stopped. */
function bare(tree: Tree): Tree {
  return tree.kind === 'end' ? tree : bare(tree.otherwise)
}

/** By path when there are many; else one after the other. */
function byPath(rules: readonly Named[], ends: Ends): Tree {
  if (rules.length <= few) return listOf(rules, ends)
  const { keyed, others } = sorted(rules, path, false)
  if (keyed.length <= few) return listOf(rules, ends)
  const { exact, prefix } = pathsOf(keyed)
  const { action } = ends
  const byPrefix = mapOf({ how: 'prefix', input: path }, prefix, ends)
  const byExact = mapOf({ how: 'exact', input: path }, exact, { action, otherwise: byPrefix })
  return listOf(others, { action, otherwise: byExact })
}

/** The same by caller first: rules that name whole identities are asked of these alone. */
export function treeOf(rules: readonly Named[], ends: Ends): Tree {
  const { keyed, others } = sorted(rules, peer, true)
  if (keyed.length === 0) return byPath(rules, ends)
  const perCaller = new Map<string, Set<Named>>()
  for (const { rule, keys } of keyed) for (const { text } of keys) addTo(perCaller, text, rule)
  const branches = new Map<string, Tree>()
  for (const [id, its] of perCaller) {
    branches.set(id, byPath(assumed(its, peer, { how: 'exact', text: id }), ends))
  }
  const map: Tree =
    branches.size === 0
      ? ends.otherwise
      : { kind: 'map', how: 'exact', input: peer, branches, otherwise: ends.otherwise }
  return listOf(others, { action: ends.action, otherwise: map })
}

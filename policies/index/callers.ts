// Rules by who calls: groups of rules that name the same principal, prefix, suffix or namespace, and
// those that may speak of anybody. A caller's groups are found once and kept.
import type { Request } from '../attributes/request.ts'
import type { Mesh } from '../language/mesh.ts'
import { principalOf } from '../rules/identity.ts'
import { type CompiledRule, ruleMatches } from '../rules/rule.ts'
import { type CallerKey, callerKeys } from './keys.ts'
import { createTable, type Table, type TableOptions } from './table.ts'
import { createTrie, reversed, type Trie } from './trie.ts'

export interface RuleIndex {
  /** The first rule found that matches. */
  find(request: Request): CompiledRule | undefined
  readonly size: number
}

/** Rules, and the tables of a large group, made when they are first needed. */
interface Group {
  readonly rules: CompiledRule[]
  http: Table | undefined
  tcp: Table | undefined
}

interface Groups {
  readonly anybody: Group
  readonly principals: Map<string, Group>
  readonly namespaces: Map<string, Group>
  readonly prefixes: Map<string, Group>
  readonly suffixes: Map<string, Group>
}

// a caller with more groups gets them as one, made for it
const mostGroups = 6
const mostCallers = 20_000
// so many rules are not worth a table
const few = 6
// tables of this size are made before the first request asks for them
const large = 64

type Tables = Omit<TableOptions, 'isHttp'>

const newGroup = (): Group => ({ rules: [], http: undefined, tcp: undefined })

/** A few rules are asked one after the other; more are looked up. */
function findIn(group: Group, request: Request, options: Tables): CompiledRule | undefined {
  const { rules } = group
  if (rules.length <= few) {
    for (const rule of rules) if (ruleMatches(rule, request)) return rule
    return undefined
  }
  return tableOf(group, request.http !== undefined, options).find(request)
}

function tableOf(group: Group, isHttp: boolean, options: Tables): Table {
  if (isHttp) {
    group.http ??= createTable(group.rules, { ...options, isHttp })
    return group.http
  }
  group.tcp ??= createTable(group.rules, { ...options, isHttp })
  return group.tcp
}

function groupIn(map: Map<string, Group>, key: string): Group {
  const known = map.get(key)
  if (known !== undefined) return known
  const made = newGroup()
  map.set(key, made)
  return made
}

function groupFor(groups: Groups, { by, text }: CallerKey): Group {
  switch (by) {
    case 'principal':
      return groupIn(groups.principals, text)
    case 'namespace':
      return groupIn(groups.namespaces, text)
    case 'prefix':
      return groupIn(groups.prefixes, text)
    case 'suffix':
      return groupIn(groups.suffixes, text)
  }
}

function sort(rules: readonly CompiledRule[], mesh: Mesh): Groups {
  const groups: Groups = {
    anybody: newGroup(),
    principals: new Map(),
    namespaces: new Map(),
    prefixes: new Map(),
    suffixes: new Map(),
  }
  for (const rule of rules) {
    const keys = callerKeys(rule.document, mesh)
    if (keys === undefined) groups.anybody.rules.push(rule)
    for (const key of keys ?? []) {
      const group = groupFor(groups, key)
      if (group.rules.at(-1) !== rule) group.rules.push(rule)
    }
  }
  return groups
}

function trieOf(map: ReadonlyMap<string, Group>, form: (text: string) => string): Trie<Group> {
  const trie = createTrie<Group>()
  for (const [text, group] of map) trie.add(form(text), group)
  return trie
}

const asIs = (text: string) => text
const namespaceAnywhere = /(?<=\/ns\/)[^/]+(?=\/)/g

/** Finds the groups of a caller; many of them become one. */
function createFinder(groups: Groups): (id: string) => readonly Group[] {
  const prefixes = trieOf(groups.prefixes, asIs)
  const suffixes = trieOf(groups.suffixes, reversed)

  return (id) => {
    const principal = principalOf(id)
    const found = new Set<Group>()
    const take = (values: readonly (Group | undefined)[]) => {
      for (const group of values) if (group !== undefined) found.add(group)
      return false
    }
    take([groups.principals.get(principal)])
    for (const [name] of id.matchAll(namespaceAnywhere)) take([groups.namespaces.get(name)])
    prefixes.some(principal, take)
    if (!suffixes.isEmpty) suffixes.some(reversed(principal), take)
    if (groups.anybody.rules.length > 0) found.add(groups.anybody)
    if (found.size <= mostGroups) return [...found]
    const merged = newGroup()
    merged.rules.push(...new Set([...found].flatMap(({ rules }) => rules)))
    return [merged]
  }
}

/** Tables that take long to make are made before the first request asks for them. */
function prepare(groups: Groups, options: Tables): void {
  const { anybody, principals, namespaces, prefixes, suffixes } = groups
  if (anybody.rules.length > few) tableOf(anybody, true, options)
  for (const map of [principals, namespaces, prefixes, suffixes]) {
    for (const group of map.values()) if (group.rules.length >= large) tableOf(group, true, options)
  }
}

export function createIndex(
  rules: readonly CompiledRule[],
  mesh: Mesh,
  isWide: boolean,
): RuleIndex {
  const isStrict = mesh.profile === 'strict'
  const options: Tables = {
    isStrict,
    isWide: isWide && isStrict,
    ignoresCase: isWide && isStrict && mesh.backend === 'caseless',
  }
  const groups = sort(rules, mesh)
  const finder = createFinder(groups)
  const known = new Map<string, readonly Group[]>()
  const nobody = [groups.anybody]
  prepare(groups, options)

  function groupsOf(id: string | undefined): readonly Group[] {
    if (id === undefined) return nobody
    const kept = known.get(id)
    if (kept !== undefined) return kept
    if (known.size >= mostCallers) known.clear()
    const made = finder(id)
    known.set(id, made)
    return made
  }

  return {
    find(request) {
      for (const group of groupsOf(request.source)) {
        const rule = findIn(group, request, options)
        if (rule !== undefined) return rule
      }
      return undefined
    },
    size: rules.length,
  }
}

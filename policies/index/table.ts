// The rules of one group, found by what a request has: path, host, port, header or address. What is
// found is only a candidate; the rule itself has the last word.
import type { IpAddress, IpBlock } from '../attributes/address.ts'
import { withUpperEscapes } from '../attributes/path.ts'
import type { HttpAttributes, Request } from '../attributes/request.ts'
import { type CompiledRule, ruleMatches } from '../rules/rule.ts'
import { type Key, requestKeys } from './keys.ts'
import { createTrie, reversed, type Trie } from './trie.ts'

export interface Table {
  /** The first rule found that matches. */
  find(request: Request): CompiledRule | undefined
}

export interface TableOptions {
  readonly isHttp: boolean
  readonly isStrict: boolean
  /** DENY and its like: any reading of a path is looked up, not only the certain ones */
  readonly isWide: boolean
  /** paths of the rules are compared without regard to case */
  readonly ignoresCase: boolean
}

type Rules = CompiledRule[]

interface Blocks {
  /** rules by prefix length and masked address */
  readonly rows: Map<number, Map<bigint, Rules>>
}

interface Places {
  readonly always: Rules
  readonly paths: Map<string, Rules>
  readonly prefixes: Trie<CompiledRule>
  readonly suffixes: Trie<CompiledRule>
  readonly hosts: Map<string, Rules>
  readonly ports: Map<number, Rules>
  readonly headers: Map<string, Map<string, Rules>>
  readonly source: Blocks
  readonly remote: Blocks
}

function push<K>(map: Map<K, Rules>, key: K, rule: CompiledRule): void {
  const known = map.get(key)
  if (known === undefined) map.set(key, [rule])
  else if (known.at(-1) !== rule) known.push(rule)
}

function pushBlock({ rows }: Blocks, { bits, value, prefix }: IpBlock, rule: CompiledRule): void {
  const length = bits * 256 + prefix
  const row = rows.get(length) ?? new Map<bigint, Rules>()
  rows.set(length, row)
  push(row, value >> BigInt(bits - prefix), rule)
}

/** The text of a path in a rule as it is looked up, and in strict compared. */
function pathForm({ isStrict, ignoresCase }: TableOptions): (text: string) => string {
  if (!isStrict) return (text) => text
  return ignoresCase ? (text) => text.toLowerCase() : withUpperEscapes
}

interface Placing {
  readonly rule: CompiledRule
  readonly form: (text: string) => string
}

function put(places: Places, key: Key, { rule, form }: Placing): void {
  switch (key.by) {
    case 'path':
      push(places.paths, form(key.text), rule)
      break
    case 'path prefix':
      places.prefixes.add(form(key.text), rule)
      break
    case 'path suffix':
      places.suffixes.add(reversed(form(key.text)), rule)
      break
    case 'host':
      push(places.hosts, key.text, rule)
      break
    case 'port':
      push(places.ports, key.port, rule)
      break
    case 'header': {
      const values = places.headers.get(key.name) ?? new Map<string, Rules>()
      places.headers.set(key.name, values)
      push(values, key.text, rule)
      break
    }
    case 'block':
      pushBlock(places[key.of], key.block, rule)
  }
}

function emptyPlaces(): Places {
  return {
    always: [],
    paths: new Map(),
    prefixes: createTrie(),
    suffixes: createTrie(),
    hosts: new Map(),
    ports: new Map(),
    headers: new Map(),
    source: { rows: new Map() },
    remote: { rows: new Map() },
  }
}

export function createTable(rules: readonly CompiledRule[], options: TableOptions): Table {
  const { isHttp, isWide, ignoresCase } = options
  const places = emptyPlaces()
  const form = pathForm(options)
  for (const rule of rules) {
    const keys = requestKeys(rule.document, isHttp)
    if (keys === undefined) places.always.push(rule)
    else for (const key of keys) put(places, key, { rule, form })
  }
  const { always, paths, prefixes, suffixes, hosts, ports, headers } = places

  let found: CompiledRule | undefined
  let asked: Request | undefined
  const among = (candidates: readonly CompiledRule[] | undefined): boolean => {
    if (candidates === undefined || asked === undefined) return false
    for (const rule of candidates) {
      if (!ruleMatches(rule, asked)) continue
      found = rule
      return true
    }
    return false
  }

  function byPath(path: string): boolean {
    const text = ignoresCase ? path.toLowerCase() : path
    return (
      (paths.size > 0 && among(paths.get(text))) ||
      (!prefixes.isEmpty && prefixes.some(text, among)) ||
      (!suffixes.isEmpty && suffixes.some(reversed(text), among))
    )
  }

  function byHttp(http: HttpAttributes): boolean {
    // an ALLOW has to match all certain readings, and so the first one
    if (isWide) {
      for (const reading of http.readings) if (byPath(reading)) return true
    } else if (byPath(http.path)) return true
    if (hosts.size > 0 && http.host !== undefined) {
      const { name, sent } = http.host
      if (among(hosts.get(name)) || (sent !== name && among(hosts.get(sent)))) return true
    }
    for (const [name, values] of headers) {
      for (const value of http.headers.values(name)) if (among(values.get(value))) return true
    }
    return false
  }

  function byAddress({ rows }: Blocks, address: IpAddress | undefined): boolean {
    if (rows.size === 0 || address === undefined) return false
    for (const [length, row] of rows) {
      const bits = length >= 128 * 256 ? 128 : 32
      if (bits !== address.bits) continue
      if (among(row.get(address.value >> BigInt(bits - (length % 256))))) return true
    }
    return false
  }

  function search(request: Request): boolean {
    if (among(always)) return true
    if (request.http !== undefined && byHttp(request.http)) return true
    const { port } = request.destination
    if (ports.size > 0 && port !== undefined && among(ports.get(port))) return true
    return byAddress(places.source, request.sourceIp) || byAddress(places.remote, request.remoteIp)
  }

  return {
    find(request) {
      asked = request
      found = undefined
      search(request)
      asked = undefined
      return found
    },
  }
}

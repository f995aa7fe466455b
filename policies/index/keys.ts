// By what a rule can be found: for each of its alternatives one positive test that a request has to pass,
// the most telling one. A rule without such a test is looked at for every request.

import { type IpBlock, parseBlock } from '../attributes/address.ts'
import { namesPort } from '../attributes/host.ts'
import type { OperationDocument, RuleDocument } from '../language/authorization.ts'
import { conditionOf } from '../language/conditions.ts'
import type { Mesh } from '../language/mesh.ts'
import { principalPatterns } from '../rules/identity.ts'
import { type Pattern, patternOf } from '../rules/pattern.ts'
import { isTemplate, literalPrefix } from '../rules/template.ts'

/** Something a request has when the rule matches it. */
export type Key =
  | { readonly by: 'path' | 'path prefix' | 'path suffix' | 'host'; readonly text: string }
  | { readonly by: 'port'; readonly port: number }
  | { readonly by: 'header'; readonly name: string; readonly text: string }
  | { readonly by: 'block'; readonly block: IpBlock; readonly of: 'source' | 'remote' }

export type CallerKey = {
  readonly by: 'principal' | 'prefix' | 'suffix' | 'namespace'
  readonly text: string
}

type Conditions = NonNullable<RuleDocument['when']>

const pathKey = (text: string): Key | undefined => {
  if (isTemplate(text)) return { by: 'path prefix', text: literalPrefix(text) }
  const pattern = patternOf(text)
  switch (pattern.kind) {
    case 'exact':
      return { by: 'path', text: pattern.text }
    case 'prefix':
      return { by: 'path prefix', text: pattern.text }
    case 'suffix':
      return { by: 'path suffix', text: pattern.text }
    case 'present':
      return undefined
  }
}

const hostKey = (text: string): Key | undefined =>
  patternOf(text).kind === 'exact' && !namesPort(text)
    ? { by: 'host', text: text.toLowerCase() }
    : undefined

/** All of a list as keys; undefined when one of them is none. */
function keysOf<K>(
  texts: readonly string[] | undefined,
  keyOf: (text: string) => K | undefined,
): readonly K[] | undefined {
  if (texts === undefined) return undefined
  const keys: K[] = []
  for (const text of texts) {
    const key = keyOf(text)
    if (key === undefined) return undefined
    keys.push(key)
  }
  return keys
}

const portKey = (text: string): Key => ({ by: 'port', port: Number(text) })

function blockKey(of: 'source' | 'remote') {
  return (text: string): Key | undefined => {
    const block = parseBlock(text)
    // what means an IPv4 address in one profile and an IPv6 address in the other is looked at always
    return block === undefined || block.bits === 128 ? undefined : { by: 'block', block, of }
  }
}

function ofOperation(it: OperationDocument, isHttp: boolean): readonly Key[] | undefined {
  const http = isHttp ? (keysOf(it.paths, pathKey) ?? keysOf(it.hosts, hostKey)) : undefined
  return http ?? keysOf(it.ports, portKey)
}

const headerKey =
  (name: string) =>
  (text: string): Key | undefined =>
    patternOf(text).kind === 'exact' ? { by: 'header', name, text } : undefined

function ofConditions(conditions: Conditions, isHttp: boolean): readonly Key[] | undefined {
  for (const { key, values } of conditions) {
    const known = conditionOf(key)
    const [name = ''] = known?.names ?? []
    const isPlainHeader = known?.kind === 'header' && !name.startsWith(':') && name !== 'host'
    const keys =
      isPlainHeader && isHttp
        ? keysOf(values, headerKey(name))
        : known?.kind === 'destination.port'
          ? keysOf(values, portKey)
          : undefined
    if (keys !== undefined) return keys
  }
  return undefined
}

function ofSources(rule: RuleDocument): readonly Key[] | undefined {
  const all: Key[] = []
  for (const { source } of rule.from ?? []) {
    const keys =
      keysOf(source.ipBlocks, blockKey('source')) ??
      keysOf(source.remoteIpBlocks, blockKey('remote'))
    if (keys === undefined) return undefined
    all.push(...keys)
  }
  return all.length === 0 ? undefined : all
}

/** Undefined when there is no telling: then the rule is looked at for every request. */
export function requestKeys(rule: RuleDocument, isHttp: boolean): readonly Key[] | undefined {
  const { to, when = [] } = rule
  const others = ofConditions(when, isHttp) ?? ofSources(rule)
  if (to === undefined) return others
  const all: Key[] = []
  for (const { operation } of to) {
    const keys = ofOperation(operation, isHttp) ?? others
    if (keys === undefined) return undefined
    all.push(...keys)
  }
  return all
}

function principalKey(pattern: Pattern): CallerKey | undefined {
  switch (pattern.kind) {
    case 'exact':
      return { by: 'principal', text: pattern.text }
    case 'prefix':
    case 'suffix':
      return { by: pattern.kind, text: pattern.text }
    case 'present':
      return undefined
  }
}

const namespaceKey = (text: string): CallerKey | undefined =>
  text.includes('*') ? undefined : { by: 'namespace', text }

function principalKeys(
  texts: readonly string[] | undefined,
  mesh: Mesh,
): readonly CallerKey[] | undefined {
  if (texts === undefined) return undefined
  const keys: CallerKey[] = []
  for (const pattern of principalPatterns(texts, mesh)) {
    const key = principalKey(pattern)
    if (key === undefined) return undefined
    keys.push(key)
  }
  return keys
}

function callerConditions(conditions: Conditions, mesh: Mesh): readonly CallerKey[] | undefined {
  for (const { key, values } of conditions) {
    const kind = conditionOf(key)?.kind
    const keys =
      kind === 'source.principal'
        ? principalKeys(values, mesh)
        : kind === 'source.namespace'
          ? keysOf(values, namespaceKey)
          : undefined
    if (keys !== undefined) return keys
  }
  return undefined
}

/** By which callers a rule can be found; undefined when it may speak of anybody. */
export function callerKeys(rule: RuleDocument, mesh: Mesh): readonly CallerKey[] | undefined {
  const conditions = callerConditions(rule.when ?? [], mesh)
  if (rule.from === undefined) return conditions
  const all: CallerKey[] = []
  for (const { source } of rule.from) {
    const keys =
      principalKeys(source.principals, mesh) ??
      keysOf(source.namespaces, namespaceKey) ??
      conditions
    if (keys === undefined) return undefined
    all.push(...keys)
  }
  return all
}

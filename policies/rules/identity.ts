// Tests of the caller's identity: whole principals, namespaces, service accounts, trust domains
// (authorization.md §4.5, §4.10).
import { type Mesh, trustDomainsOf } from '../language/mesh.ts'
import { matches, type Pattern, patternOf } from './pattern.ts'

export interface KnownIdentity {
  readonly namespace: string | undefined
  readonly serviceAccount: string | undefined
}

const form = /^\/ns\/([^/]+)\/sa\/([^/]+)$/

/** What an ID of the form `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT` says. */
export function identityOf(id: string): KnownIdentity {
  const [, namespace, serviceAccount] = form.exec(pathOf(id)) ?? []
  return { namespace, serviceAccount }
}

const scheme = 'spiffe://'

export function hasScheme(id: string): boolean {
  return id.startsWith(scheme)
}

/** A principal as rules write it: without scheme. */
export function principalOf(id: string): string {
  return hasScheme(id) ? id.slice(scheme.length) : id
}

export function trustDomainOf(id: string): string {
  const principal = principalOf(id)
  const slash = principal.indexOf('/')
  return slash < 0 ? principal : principal.slice(0, slash)
}

/** With its slash; empty without one. */
export function pathOf(id: string): string {
  const principal = principalOf(id)
  const slash = principal.indexOf('/')
  return slash < 0 ? '' : principal.slice(slash)
}

const quote = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
const starred = (text: string, star: string) => text.split('*').map(quote).join(star)

/** Which identities a namespace means: `/ns/NAMESPACE/` anywhere in the path, a star for any run. */
function namespaceTest(name: string): (id: string) => boolean {
  if (!name.includes('*')) return (id) => id.includes(`/ns/${name}/`)
  const expression = new RegExp(`/ns/${starred(name, '.*')}/`)
  return (id) => expression.test(id)
}

/** `NAMESPACE/ACCOUNT`, or the account of the policy's own namespace. */
function accountTest(text: string, ownNamespace: string): (id: string) => boolean {
  const slash = text.indexOf('/')
  const namespace = slash < 0 ? ownNamespace : text.slice(0, slash)
  const account = text.slice(slash + 1)
  const expression = new RegExp(
    `^spiffe://.+/ns/${quote(namespace)}/(?:.+/|)sa/${quote(account)}(?:/.+)?$`,
  )
  return (id) => expression.test(id)
}

export type IdTest = (id: string) => boolean

const someOf = (tests: readonly IdTest[]): IdTest => {
  const [only] = tests
  return only !== undefined && tests.length === 1 ? only : (id) => tests.some((test) => test(id))
}

export function namespacesTest(names: readonly string[]): IdTest {
  return someOf(names.map(namespaceTest))
}

export function accountsTest(texts: readonly string[], namespace: string): IdTest {
  return someOf(texts.map((text) => accountTest(text, namespace)))
}

/** Whether an ID is one of the own trust domain or its aliases and has a namespace and an account. */
export function isOwn(mesh: Mesh): IdTest {
  const own = new Set<string>(trustDomainsOf(mesh))
  return (id) => own.has(trustDomainOf(id)) && form.test(pathOf(id))
}

const localName = 'cluster.local'

/** A trust domain that is written, as all that it means: the own one also means its aliases. */
function withAliases(written: string, mesh: Mesh): string[] {
  const own = trustDomainsOf(mesh)
  if (written === '*') return [written]
  const fits = (name: string) => matches(patternOf(written), name)
  if (written !== localName && !own.some(fits)) return [written]
  // a pattern stays as it is, and the names that it leaves out are added
  return [...new Set(own.map((name) => (fits(name) ? written : name)))]
}

function principalPattern(text: string, mesh: Mesh): Pattern | readonly Pattern[] {
  if (text.startsWith(scheme)) return patternOf(text.slice(scheme.length))
  const slash = text.indexOf('/')
  if (slash < 0) return patternOf(text)
  const name = text.slice(0, slash)
  // nearly all of a large set are of this kind
  if (name === mesh.trustDomain && mesh.trustDomainAliases.length === 0) return patternOf(text)
  return withAliases(name, mesh).map((it) => patternOf(it + text.slice(slash)))
}

/** Principals with their aliases (§4.10); those with a scheme mean one trust domain exactly. */
export function principalPatterns(texts: readonly string[], mesh: Mesh): readonly Pattern[] {
  return texts.flatMap((text) => principalPattern(text, mesh))
}

export function trustDomainPatterns(texts: readonly string[], mesh: Mesh): readonly Pattern[] {
  return texts.flatMap((text) => withAliases(text, mesh).map(patternOf))
}

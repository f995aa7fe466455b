// Who calls, as comparisons of the URI SAN of a verified client certificate. The guard has refused whatever is
// no single SPIFFE ID, so expressions meet plain ASCII.
import { trustDomainsOf } from '../language/mesh.ts'
import { principalPatterns, trustDomainPatterns } from '../rules/identity.ts'
import type { Pattern } from '../rules/pattern.ts'
import { exactly, type Lower } from './lowering.ts'
import { all, any, isPresent, not, type Predicate, peer, quote, regex, text } from './predicate.ts'

const scheme = 'spiffe://'

function principal(pattern: Pattern): Predicate {
  switch (pattern.kind) {
    case 'exact':
    case 'prefix':
      return text(peer, pattern.kind, scheme + pattern.text)
    case 'suffix':
      // the scheme is no part of what a suffix is compared with
      return regex(peer, `${scheme}.*${quote(pattern.text)}`)
    case 'present':
      return isPresent(peer)
  }
}

function trustDomain(pattern: Pattern): Predicate {
  switch (pattern.kind) {
    case 'exact':
      return regex(peer, `${scheme}${quote(pattern.text)}(?:/.*)?`)
    case 'prefix':
      return regex(peer, `${scheme}${quote(pattern.text)}[^/]*(?:/.*)?`)
    case 'suffix':
      return regex(peer, `${scheme}[^/]*${quote(pattern.text)}(?:/.*)?`)
    case 'present':
      return isPresent(peer)
  }
}

/** Absent identities match no value: a negation holds for them in a DENY, and not in an ALLOW. */
function ofOneValue(predicates: readonly Predicate[], isNegated: boolean, isWidest: boolean) {
  const named = any(...predicates)
  if (!isNegated) return named
  return isWidest ? not(named) : all(isPresent(peer), not(named))
}

export const principals: Lower = ({ texts, isNegated }, { mesh, quantifier }) =>
  exactly(
    ofOneValue(principalPatterns(texts, mesh).map(principal), isNegated, quantifier === 'widest'),
  )

export const trustDomains: Lower = ({ texts, isNegated }, { mesh, quantifier }) =>
  exactly(
    ofOneValue(
      trustDomainPatterns(texts, mesh).map(trustDomain),
      isNegated,
      quantifier === 'widest',
    ),
  )

/** `/ns/NAMESPACE/` anywhere; a star is any run. */
function namespace(name: string): Predicate {
  if (!name.includes('*')) return text(peer, 'contains', `/ns/${name}/`)
  return regex(peer, `.*/ns/${name.split('*').map(quote).join('.*')}/.*`)
}

function account(written: string, ownNamespace: string): Predicate {
  const slash = written.indexOf('/')
  const of = slash < 0 ? ownNamespace : written.slice(0, slash)
  const name = quote(written.slice(slash + 1))
  return regex(peer, `${scheme}.+/ns/${quote(of)}/(?:.+/|)sa/${name}(?:/.+)?`)
}

/** The usual form, of the own trust domain or an alias: nobody else is named in an ALLOW of strict. */
function isOwn(mesh: Parameters<typeof trustDomainsOf>[0]): Predicate {
  const names = trustDomainsOf(mesh).map(quote).join('|')
  return regex(peer, `${scheme}(?:${names})/ns/[^/]+/sa/[^/]+`)
}

/** As `ofIdentity` in rules/caller-tests.ts. */
function ofIdentity(made: (asked: string, namespace: string) => Predicate): Lower {
  return ({ texts, isNegated }, { mesh, quantifier, namespace: own }) => {
    const named = any(...texts.map((it) => made(it, own)))
    if (quantifier === 'narrowest') {
      return exactly(all(isOwn(mesh), isNegated ? not(named) : named))
    }
    return exactly(isNegated ? not(all(isOwn(mesh), named)) : named)
  }
}

export const namespaces: Lower = ofIdentity(namespace)
export const serviceAccounts: Lower = ofIdentity(account)

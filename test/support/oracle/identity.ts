// What a peer's SPIFFE ID says (§4.5) and which trust domains stand for one another (§4.10).
import { type Mesh, ownTrustDomains } from './mesh.ts'
import { matchesForm, quote } from './pattern.ts'

const scheme = 'spiffe://'

/** SPIFFE-ID §2: what no certificate may hold in another form; strict refuses it (row 101). */
export const isSpiffeId = (text: string): boolean =>
  /^spiffe:\/\/[a-z0-9._-]+(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*$/.test(text)

/** Whether the peer is of the own trust domain or an alias of it. */
export function isOwn(principal: string, mesh: Mesh): boolean {
  const [, trustDomain] = /^spiffe:\/\/([^/]*)/.exec(principal) ?? []
  return trustDomain !== undefined && ownTrustDomains(mesh).includes(trustDomain)
}

/** The trust domains that one in a policy stands for, itself among them where it is kept. */
function expand(written: string, mesh: Mesh): readonly string[] {
  const own = ownTrustDomains(mesh)
  if (written === '*') return [written]
  if (own.includes(written) || written === 'cluster.local') return own
  const fits = own.filter((each) => matchesForm(written, each))
  return fits.length === 0 ? [written] : [written, ...own.filter((each) => !fits.includes(each))]
}

function matchesOnePrincipal(pattern: string, principal: string): boolean {
  if (pattern === '*') return principal !== ''
  if (pattern.startsWith('*')) {
    return principal.startsWith(scheme) && principal.slice(scheme.length).endsWith(pattern.slice(1))
  }
  return matchesForm(`${scheme}${pattern}`, principal)
}

export function matchesPrincipal(pattern: string, principal: string, mesh: Mesh): boolean {
  const slash = pattern.indexOf('/')
  if (slash < 0) return matchesOnePrincipal(pattern, principal)
  const written = pattern.slice(0, slash)
  // in the middle of a principal a star at the end of the trust domain is an ordinary character
  const domains = written.length > 1 && written.endsWith('*') ? [written] : expand(written, mesh)
  return domains.some((domain) =>
    matchesOnePrincipal(`${domain}${pattern.slice(slash)}`, principal),
  )
}

export function matchesTrustDomain(pattern: string, principal: string, mesh: Mesh): boolean {
  return expand(pattern, mesh).some((domain) => {
    const source = domain.split('*').map(quote).join('[^/]*')
    return new RegExp(`^spiffe://${source}/`).test(principal)
  })
}

export function matchesNamespace(pattern: string, principal: string): boolean {
  const source = pattern.split('*').map(quote).join('.*')
  return new RegExp(`^.*/ns/${source}/.*$`, 's').test(principal)
}

/** `pattern` is `NS/SA`, or `SA` of the policy's own namespace. */
export function matchesServiceAccount(
  pattern: string,
  principal: string,
  policyNamespace: string,
): boolean {
  const [first = '', second] = pattern.split('/')
  const namespace = quote(second === undefined ? policyNamespace : first)
  const account = quote(second ?? first)
  const source = `^spiffe://.+/ns/${namespace}/(?:.+/)?sa/${account}(?:/.+)?$`
  return new RegExp(source, 's').test(principal)
}

/** The form that Istio gives to its identities. */
export const hasForm = (principal: string): boolean =>
  /^spiffe:\/\/[^/]+\/ns\/[^/]+\/sa\/[^/]+$/.test(principal)

// SPIFFE IDs and trust domain names (SPIFFE-ID §2). Exactly one function makes each brand.
import { IdentityError } from './errors.ts'

declare const brand: unique symbol

/** `spiffe://<trust domain>[/<path>]`, valid by SPIFFE-ID §2, at most 2048 bytes. */
export type SpiffeId = string & { readonly [brand]: 'SpiffeId' }

/** A trust domain name such as `example.org`, without scheme; at most 255 bytes. */
export type TrustDomain = string & { readonly [brand]: 'TrustDomain' }

const scheme = 'spiffe://'
const longestId = 2048
const longestTrustDomain = 255
const trustDomainGrammar = /^[a-z0-9._-]+$/
const segmentGrammar = /^[A-Za-z0-9._-]+$/

function refuse(text: string, why: string): never {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text
  throw new IdentityError('ERR_SPIFFE_ID', `${JSON.stringify(shown)} is no SPIFFE ID: ${why}`)
}

/** Says what is wrong with a trust domain name; undefined when nothing is (§2.1, §2.3). */
function trustDomainProblem(name: string): string | undefined {
  if (name === '') return 'the trust domain is empty'
  if (name.length > longestTrustDomain) return 'the trust domain is longer than 255 bytes'
  if (!trustDomainGrammar.test(name)) {
    return 'the trust domain may contain only a-z, 0-9, dot, hyphen and underscore'
  }
  return undefined
}

/** Says what is wrong with a path that starts with a slash; undefined when nothing is (§2.2). */
function pathProblem(path: string): string | undefined {
  for (const segment of path.slice(1).split('/')) {
    if (segment === '') return 'the path has an empty segment or a trailing slash'
    if (segment === '.' || segment === '..') return 'the path has a dot segment'
    if (!segmentGrammar.test(segment)) {
      return 'the path may contain only letters, digits, dot, hyphen and underscore'
    }
  }
  return undefined
}

function idProblem(text: string): string | undefined {
  if (!text.startsWith(scheme)) return 'it does not start with spiffe://'
  if (text.length > longestId) return 'it is longer than 2048 bytes'
  const slash = text.indexOf('/', scheme.length)
  if (slash < 0) return trustDomainProblem(text.slice(scheme.length))
  return trustDomainProblem(text.slice(scheme.length, slash)) ?? pathProblem(text.slice(slash))
}

/** Throws ERR_SPIFFE_ID. Accepts IDs with and without a path; nothing is normalised. */
export function parseSpiffeId(text: string): SpiffeId {
  const problem = idProblem(text)
  return problem === undefined ? (text as SpiffeId) : refuse(text, problem)
}

export function isSpiffeId(text: string): text is SpiffeId {
  return idProblem(text) === undefined
}

/** A name without scheme, or the trust domain's own ID (`spiffe://example.org`). Throws ERR_SPIFFE_ID. */
export function parseTrustDomain(text: string): TrustDomain {
  const name = text.startsWith(scheme) ? text.slice(scheme.length) : text
  const problem = trustDomainProblem(name)
  return problem === undefined ? (name as TrustDomain) : refuse(text, problem)
}

/** The ID of `path` (empty, or segments with a leading slash) in `trustDomain`. Throws ERR_SPIFFE_ID. */
export function spiffeIdOf(trustDomain: TrustDomain, path = ''): SpiffeId {
  return parseSpiffeId(`${scheme}${trustDomain}${path}`)
}

export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', scheme.length)
  return (slash < 0 ? id.slice(scheme.length) : id.slice(scheme.length, slash)) as TrustDomain
}

/** With its leading slash; empty for the ID of the trust domain itself. */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', scheme.length)
  return slash < 0 ? '' : id.slice(slash)
}

export function isMemberOf(id: SpiffeId, trustDomain: TrustDomain): boolean {
  return trustDomainOf(id) === trustDomain
}

/** Whether the path is `prefix` or lies below it, by whole segments: `/a` holds `/a/b`, not `/ab`. */
export function isBelow(id: SpiffeId, prefix: string): boolean {
  const path = pathOf(id)
  return path === prefix || path.startsWith(`${prefix}/`)
}

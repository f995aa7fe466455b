// Matchers say yes, or say why not; they compose (go-spiffe's spiffeid.Matcher).
import { isMemberOf, type SpiffeId, type TrustDomain } from './id.ts'

/** Returns undefined when the ID is accepted, otherwise the reason why not, for people. */
export type Matcher = (id: SpiffeId) => string | undefined

export function matchId(expected: SpiffeId): Matcher {
  return (id) => (id === expected ? undefined : `the peer is ${id}, expected ${expected}`)
}

export function matchOneOf(expected: readonly SpiffeId[]): Matcher {
  const known = new Set(expected)
  return (id) =>
    known.has(id) ? undefined : `the peer is ${id}, expected one of ${expected.join(', ')}`
}

export function matchMemberOf(trustDomain: TrustDomain): Matcher {
  return (id) =>
    isMemberOf(id, trustDomain)
      ? undefined
      : `the peer is ${id}, not of trust domain ${trustDomain}`
}

/** Any authenticated peer: say so on purpose. */
export const matchAny: Matcher = () => undefined

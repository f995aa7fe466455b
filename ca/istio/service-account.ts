// Istio's form of an identity: spiffe://TD/ns/NAMESPACE/sa/ACCOUNT, from `system:serviceaccount:NAMESPACE:ACCOUNT`.
import { IdentityError } from '../../spiffe/errors.ts'
import { type SpiffeId, spiffeIdOf, type TrustDomain } from '../../spiffe/id.ts'

// Kubernetes names both by RFC 1123: a namespace by a label, an account by a subdomain
const namespace = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/
const account = /^[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?$/

/** The identity of a token's `sub`. Throws ERR_UNTRUSTED for a subject that is no service account. */
export function idOfServiceAccount(subject: string, trustDomain: TrustDomain): SpiffeId {
  const [system, kind, ns = '', sa = '', ...rest] = subject.split(':')
  const isAccount = system === 'system' && kind === 'serviceaccount' && rest.length === 0
  if (!isAccount || !namespace.test(ns) || !account.test(sa)) {
    throw new IdentityError(
      'ERR_UNTRUSTED',
      `${JSON.stringify(subject.slice(0, 100))} is no system:serviceaccount:NAMESPACE:NAME`,
    )
  }
  return spiffeIdOf(trustDomain, `/ns/${ns}/sa/${sa}`)
}

// What becomes of each certificate (proxies.md §7.2): refused in TLS, refused by a decision, or let in and told to the
// workload as the client that it is.
import type { CertificateName } from '../support/odd-certificates.ts'

export type Outcome = 'tls' | 403 | 'client' | 'partner'

export interface Row {
  /** decided by Envoy alone, which believes our own authority */
  readonly native: Outcome
  /** decided by the agent, where a partner's authority is believed as well */
  readonly asked: Outcome
}

const refused: Row = { native: 'tls', asked: 'tls' }
/** Envoy's validator lets it in, the guard does not. */
const guarded: Row = { native: 403, asked: 403 }
const good: Row = { native: 'client', asked: 'client' }
const goodPartner: Row = { native: 'tls', asked: 'partner' }
/** Nothing of Envoy looks at purposes: those that decide alone believe an authority that issues no such thing. */
const purposes: Row = { native: 'client', asked: 403 }
const judged: Row = { native: 'tls', asked: 403 }

export const table: Readonly<Record<CertificateName, Row>> = {
  good,
  'under an intermediate': good,
  'federated, good': goodPartner,
  'federated, under an intermediate': goodPartner,
  none: refused,
  'forged by a federated authority': refused,
  'forged by its intermediate': refused,
  'forged by an authority of our name': refused,
  'signed by a leaf': refused,
  'an unknown trust domain': refused,
  'our name, an unknown authority': refused,
  "a partner's name, our authority": refused,
  'two URI names': guarded,
  'the same URI name twice': guarded,
  'two URI names, the second no SPIFFE ID': guarded,
  'two URI names of a partner, its own first, ours second': judged,
  'two URI names of a partner, ours first': refused,
  'a DNS name that reads like ours, of a partner': goodPartner,
  'no subject alternative name': refused,
  'a DNS name only': refused,
  'server purpose only': purposes,
  'client purpose only': purposes,
  'code signing only': purposes,
  'federated, server purpose only': judged,
  'federated, code signing only': judged,
  // X509-SVID §4.4: it need not be there
  'no extended key usage': good,
  'a CA': refused,
  'may sign certificates': refused,
  'may sign CRLs': refused,
  'no digital signature': refused,
  'no key usage': refused,
  expired: refused,
  'not valid yet': refused,
  'dots in the ID': guarded,
  'a dot in the ID': guarded,
  'an empty segment': guarded,
  'a slash at the end': guarded,
  'a query': guarded,
  'a fragment': guarded,
  'an escape': guarded,
  'a comma': guarded,
  'a NUL': guarded,
  'letters that are none': guarded,
  'a trust domain in capitals': refused,
  'a scheme in capitals': refused,
  'a port': refused,
  'a user': refused,
  'no path': refused,
  'no path but its slash': guarded,
  'another scheme': refused,
  'federated, dots in the ID': judged,
  'federated, no path': refused,
  'federated, expired': refused,
}

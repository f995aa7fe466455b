// Policies as they are pushed, read and compiled: what did not change since the push before is taken over.
import { compile, type PolicySet } from '../policies/compile.ts'
import { createPolicyReader } from '../policies/language/read.ts'
import type { JwksSource } from '../policies/tokens/authenticate.ts'
import type { PolicySet as PolicySetMessage } from '../proto/gen/castellan/policy/v1/policy_pb.js'
import type { Clock } from '../runtime/clock.ts'
import { createMeshConfig, type Trusted } from './rehearsal.ts'

export interface PolicySetsOptions {
  readonly trusted: Trusted
  /** the keys of token issuers that are named by an address */
  readonly jwks: JwksSource
  readonly clock: Pick<Clock, 'now'>
}

/** Throws ERR_POLICY when a part of it cannot be used: then no part is. */
export function createPolicySets({ trusted, jwks, clock }: PolicySetsOptions) {
  const read = createPolicyReader()
  const configOf = createMeshConfig(trusted)
  return (message: PolicySetMessage | undefined, trustDomain: string): PolicySet => {
    const mesh = configOf(trustDomain, message?.rootNamespace ?? '')
    const documents = read((message?.files ?? []).map(({ name, text }) => ({ name, text })))
    return compile(documents, { mesh, now: clock.now(), jwks })
  }
}

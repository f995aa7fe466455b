// The policies that the agent decides with: compiled once for each push, whoever it decides for, and in force
// only after a rehearsal. A push that cannot be used leaves the former ones where they are.
import type { Issuers } from '../../client/issuers.ts'
import type { Mesh } from '../../decisions/mesh.ts'
import { createPolicySets } from '../../decisions/policy-sets.ts'
import type { Trusted } from '../../decisions/rehearsal.ts'
import { jwksUrisOf } from '../../policies/language/read.ts'
import type { PolicySet } from '../../proto/gen/castellan/policy/v1/policy_pb.js'
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import { explain } from '../../spiffe/errors.ts'
import type { Knowledge } from '../knowledge.ts'
import type { Ledger } from '../sidecar/ledger.ts'

export interface InForceOptions {
  readonly knowledge: Pick<Knowledge, 'policies' | 'bundle' | 'onChange'>
  readonly ledger: Pick<Ledger, 'decidesWith'>
  readonly mesh: Mesh
  readonly issuers: Pick<Issuers, 'source' | 'follow'>
  readonly trusted: Trusted
  /** Decides once as callers will. Throws what goes wrong. */
  readonly rehearse: (policies: ReturnType<Mesh['current']>['policies']) => void
  readonly clock: Clock
  readonly log: Log
}

/**
 * Puts what the agent knows into force, now and after each push, until it is disposed. The deny-list is not
 * among it: whoever verifies a peer asks the agent's own.
 */
export function followPolicies(options: InForceOptions): Disposable {
  const { knowledge, ledger, mesh, issuers, trusted, rehearse, clock, log } = options
  const setOf = createPolicySets({ trusted, jwks: issuers.source, clock })
  let seen: PolicySet | undefined
  let inForce = 0n

  function put(message: PolicySet): void {
    const { version } = message
    try {
      const policies = setOf(message, knowledge.bundle().trustDomain)
      rehearse(policies)
      issuers.follow(jwksUrisOf(policies.documents))
      mesh.put({ ...mesh.current(), policies })
      inForce = version
      log.info({ version: String(version) }, 'policies in force at the decision socket')
      ledger.decidesWith({ policies: version, refusal: '' })
    } catch (error) {
      log.error({ version: String(version), err: error }, 'policies refused, the former stay')
      ledger.decidesWith({ policies: inForce, refusal: explain(error) })
    }
  }

  function look(): void {
    const message = knowledge.policies()
    if (message === undefined || message === seen) return
    seen = message
    put(message)
  }

  look()
  return knowledge.onChange(look)
}

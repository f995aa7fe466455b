// How the agent gets its next SVID: over the connection that the present one opened, or, where the same
// evidence is good again, by attesting once more.
import { Code, ConnectError } from '@connectrpc/connect'
import type { Clock } from '../runtime/clock.ts'
import { renewOwn, type Work } from './calls.ts'
import type { AgentConfig } from './config.ts'
import { attestAgain, attestorOf } from './join.ts'
import type { Knowledge } from './knowledge.ts'
import type { AgentSvid } from './own-svid.ts'

export interface OwnRenewal {
  next(work: Work): Promise<AgentSvid>
  /**
   * After the authority refused the present SVID for good: another one, `later` when it could not be
   * asked, `never` when it refuses the evidence as well or the evidence is good once only.
   */
  instead(signal: AbortSignal): Promise<AgentSvid | 'later' | 'never'>
}

export interface OwnRenewalOptions {
  readonly config: AgentConfig
  readonly knowledge: Knowledge
  readonly clock: Clock
}

export function createOwnRenewal({ config, knowledge, clock }: OwnRenewalOptions): OwnRenewal {
  const { isRepeatable } = attestorOf(config)
  const again = (signal: AbortSignal) => attestAgain(config, knowledge.bundle(), { clock, signal })
  return {
    next: (work) => (isRepeatable ? again(work.signal) : renewOwn(work)),
    async instead(signal) {
      if (!isRepeatable) return 'never'
      try {
        return await again(signal)
      } catch (error) {
        const isNo = error instanceof ConnectError && error.code === Code.PermissionDenied
        return isNo ? 'never' : 'later'
      }
    },
  }
}

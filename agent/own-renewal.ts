// How the agent gets its next SVID: over the connection that the present one opened, or, where the same
// evidence is good again, by attesting once more.
import { Code, ConnectError } from '@connectrpc/connect'
import type { Clock } from '../runtime/clock.ts'
import { renewOwn, type Work } from './calls.ts'
import type { AgentConfig } from './config.ts'
import { attestAgain, attestorOf } from './join.ts'
import type { Knowledge } from './knowledge.ts'
import type { AgentSvid } from './own-svid.ts'

/**
 * `never`: the evidence is refused as well, or good once only; `later`: the authority could not be asked,
 * or this node could not show its evidence.
 */
export type Instead =
  | { readonly kind: 'another'; readonly svid: AgentSvid }
  | { readonly kind: 'later'; readonly error: unknown }
  | { readonly kind: 'never' }

export interface OwnRenewal {
  next(work: Work): Promise<AgentSvid>
  /** After the authority refused the present SVID for good. */
  instead(signal: AbortSignal): Promise<Instead>
}

export interface OwnRenewalOptions {
  readonly config: AgentConfig
  readonly knowledge: Knowledge
  readonly clock: Clock
}

/** Which way follows from the configured evidence. */
export function createOwnRenewal({ config, knowledge, clock }: OwnRenewalOptions): OwnRenewal {
  const { isRepeatable } = attestorOf(config)
  const again = (signal: AbortSignal) => attestAgain(config, knowledge.bundle(), { clock, signal })
  return {
    next: (work) => (isRepeatable ? again(work.signal) : renewOwn(work)),
    async instead(signal) {
      if (!isRepeatable) return { kind: 'never' }
      try {
        return { kind: 'another', svid: await again(signal) }
      } catch (error) {
        const isNo = error instanceof ConnectError && error.code === Code.PermissionDenied
        return isNo ? { kind: 'never' } : { kind: 'later', error }
      }
    },
  }
}

// How the agent gets its next SVID: over the connection that the present one opened, or, where the same
// evidence is good again, by attesting once more.
import { Code, ConnectError } from '@connectrpc/connect'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import type { Addresses } from './addresses.ts'
import { renewOwn, type Work } from './calls.ts'
import type { AgentConfig } from './config.ts'
import { type AgentCounts, counted } from './counts.ts'
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

const isDenial = (error: unknown) =>
  error instanceof ConnectError && error.code === Code.PermissionDenied

export interface OwnRenewalOptions {
  readonly config: AgentConfig
  readonly addresses: Addresses
  readonly knowledge: Knowledge
  readonly counts: Pick<AgentCounts, 'requests'>
  readonly tracer: Tracer
  readonly clock: Clock
  readonly log: Log
}

/** Which way follows from the configured evidence. */
export function createOwnRenewal(options: OwnRenewalOptions): OwnRenewal {
  const { config, addresses, knowledge, counts, tracer, clock, log } = options
  const { isRepeatable } = attestorOf(config)
  const counting = (ask: () => Promise<AgentSvid>) =>
    counted(counts.requests, { kind: 'own', isNo: isDenial }, () =>
      tracer.span('agent.renew', {}, ask),
    )
  const again = (signal: AbortSignal) => {
    const way = { address: addresses.current(), clock, signal, tracer }
    return counting(() => attestAgain(config, knowledge.bundle(), way))
  }

  /** The connection lives on meanwhile: what the authority says of others still arrives. */
  async function untilAttested(signal: AbortSignal): Promise<AgentSvid> {
    const backoff = createBackoff({ first: 200, cap: 60_000 })
    for (;;) {
      try {
        return await again(signal)
      } catch (error) {
        if (signal.aborted) throw error
        log.warn({ err: error }, 'this node could not attest again yet; tried again')
      }
      await clock.sleep(backoff.next(), { signal })
    }
  }

  return {
    next: (work) => (isRepeatable ? untilAttested(work.signal) : counting(() => renewOwn(work))),
    async instead(signal) {
      if (!isRepeatable) return { kind: 'never' }
      try {
        return { kind: 'another', svid: await again(signal) }
      } catch (error) {
        return isDenial(error) ? { kind: 'never' } : { kind: 'later', error }
      }
    },
  }
}

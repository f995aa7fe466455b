// Until this node has an identity: attests again and again while waiting may help.
import { Code, ConnectError } from '@connectrpc/connect'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { hasCode } from '../spiffe/errors.ts'
import type { Addresses } from './authority.ts'
import type { AgentConfig } from './config.ts'
import { join } from './join.ts'
import type { AgentState, StateFile } from './state.ts'

export interface JoiningOptions {
  readonly config: AgentConfig
  readonly addresses: Addresses
  readonly state: StateFile
  readonly clock: Clock
  readonly log: Log
}

/** Waiting helps against an authority that is away, never against one that says no. */
export function isRefusal(error: unknown): boolean {
  if (hasCode(error)) return !hasCode(error, 'ERR_UNAVAILABLE')
  const later: readonly Code[] = [
    Code.Unavailable,
    // a connection that was reset
    Code.Aborted,
    Code.DeadlineExceeded,
    Code.Internal,
    Code.Unknown,
    Code.ResourceExhausted,
  ]
  return error instanceof ConnectError && !later.includes(error.code)
}

export interface Patience {
  /** `refusals`: also of an authority that says no, for there are workloads to serve meanwhile */
  readonly with: 'outages' | 'refusals'
  readonly onTrouble: (error: unknown) => void
}

/** Throws what waiting does not help against. */
export async function joinAtLast(
  { config, addresses, state, clock, log }: JoiningOptions,
  patience: Patience,
  signal: AbortSignal,
): Promise<AgentState> {
  const backoff = createBackoff({ first: 100, cap: patience.with === 'outages' ? 2000 : 30_000 })
  for (;;) {
    try {
      const joined = await join(config, state, { address: addresses.current(), clock, signal })
      log.info({ agentId: joined.svid.id }, 'this node has joined')
      return joined
    } catch (error) {
      signal.throwIfAborted()
      if (patience.with === 'outages' && isRefusal(error)) throw error
      patience.onTrouble(error)
      log.warn({ err: error }, 'this node has not joined yet; tried again')
      addresses.fail()
    }
    await clock.sleep(backoff.next(), { signal })
  }
}

// Until this node has an identity: attests again and again while waiting may help.
import { Code, ConnectError } from '@connectrpc/connect'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { hasCode } from '../spiffe/errors.ts'
import type { Addresses } from './addresses.ts'
import { refuseBanned } from './ban.ts'
import type { AgentConfig } from './config.ts'
import { type AgentCounts, counted } from './counts.ts'
import { join } from './join.ts'
import type { AgentState, StateFile } from './state.ts'

export interface JoiningOptions {
  readonly config: AgentConfig
  readonly addresses: Addresses
  readonly state: StateFile
  /** who this node was; there are workloads to serve meanwhile, also of an authority that says no */
  readonly former: AgentState | undefined
  readonly onTrouble: (error: unknown) => void
  readonly counts: Pick<AgentCounts, 'requests'>
  readonly tracer: Tracer
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

/**
 * Throws what waiting does not help against: whatever the authority refuses to a node that has no identity yet;
 * to one that had one, that it is banned.
 */
export async function joinAtLast(
  options: JoiningOptions,
  signal: AbortSignal,
): Promise<AgentState> {
  const { config, addresses, state, former, onTrouble, counts, tracer, clock, log } = options
  const backoff = createBackoff({ first: 100, cap: former === undefined ? 2000 : 30_000 })
  for (;;) {
    const way = { address: addresses.current(), clock, signal, tracer }
    try {
      const joined = await counted(counts.requests, { kind: 'join', isNo: isRefusal }, () =>
        tracer.span('agent.join', {}, () => join({ config, state, last: former?.bundle }, way)),
      )
      log.info({ agentId: joined.svid.id }, 'this node has joined')
      return joined
    } catch (error) {
      signal.throwIfAborted()
      if (former === undefined && isRefusal(error)) throw error
      if (former !== undefined) await refuseBanned(former, way)
      onTrouble(error)
      log.warn({ err: error }, 'this node has not joined yet; tried again')
      addresses.fail()
    }
    await clock.sleep(backoff.next(), { signal })
  }
}

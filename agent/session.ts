// The agent's standing with its authority: one long-lived stream, its own SVID renewed, reconnected with
// jittered backoff. While the authority is away everything else goes on with what is known.
import { Code, ConnectError } from '@connectrpc/connect'
import {
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
} from '../proto/gen/spire/api/types/status_pb.js'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { createTopic, type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { type Addresses, type AuthorityLink, openLink } from './authority.ts'
import { followControl, requestSvids, untilDue } from './calls.ts'
import type { AgentConfig } from './config.ts'
import type { Knowledge } from './knowledge.ts'
import { createOwnRenewal } from './own-renewal.ts'
import type { AgentSvid } from './own-svid.ts'
import type { StateFile } from './state.ts'
import type { RequestSvids } from './svid-renewal.ts'

export interface Session {
  readonly request: RequestSvids
  status(): { readonly svid: AgentSvid; readonly trouble: string | undefined }
  onChange(listener: () => void): Disposable
  /** Runs until stopped; rejects when the authority no longer wants this agent. */
  loop(): Running
}

export interface SessionOptions {
  readonly config: AgentConfig
  readonly addresses: Addresses
  readonly knowledge: Knowledge
  readonly state: StateFile
  readonly svid: AgentSvid
  readonly clock: Clock
  readonly log: Log
}

/** What the authority says when waiting will not help, and what a person does then. */
const remedies: Readonly<Partial<Record<Reason, string>>> = {
  [Reason.AGENT_BANNED]:
    'this agent is banned; delete it at the authority before it may join again',
  [Reason.AGENT_EXPIRED]: 'the certificate of this agent has expired; join again with a new token',
  [Reason.AGENT_NOT_ACTIVE]:
    'the certificate of this agent was replaced by another one; join again with a new token',
  [Reason.AGENT_NOT_ATTESTED]:
    'the authority does not know this agent; join again with a new token',
}

function finalReason(error: unknown): string | undefined {
  if (!(error instanceof ConnectError) || error.code !== Code.PermissionDenied) return undefined
  return error
    .findDetails(PermissionDeniedDetailsSchema)
    .map(({ reason }) => remedies[reason])
    .find((remedy) => remedy !== undefined)
}

/** A ConnectError says itself what its cause says. */
function textOf(problem: unknown): string {
  return problem instanceof ConnectError ? problem.message : explain(problem)
}

export function createSession(options: SessionOptions): Session {
  const { config, addresses, knowledge, state, clock, log } = options
  const topic = createTopic<void>()
  const renewal = createOwnRenewal({ config, addresses, knowledge, clock, log })
  let svid = options.svid
  let link: AuthorityLink | undefined
  let trouble: string | undefined = 'not connected yet'

  function tell(problem: unknown): void {
    if (problem !== undefined)
      log.warn({ err: problem }, 'the connection to the authority is lost; workloads go on')
    else if (trouble !== undefined) log.info({ agentId: svid.id }, 'connected to the authority')
    if (problem !== undefined) addresses.fail()
    trouble = problem === undefined ? undefined : textOf(problem)
    topic.publish()
  }

  const save = (next: AgentSvid) => {
    svid = next
    state.save({ svid, bundle: knowledge.bundle() })
  }

  /** One connection: until it breaks, or until the SVID it was opened with was renewed. */
  async function connect(stop: AbortSignal, connected: () => void): Promise<void> {
    const over = new AbortController()
    const signal = AbortSignal.any([stop, over.signal])
    const to = { address: addresses.current(), bundle: knowledge.bundle() }
    using current = openLink({ ...to, svid, now: clock.now })
    link = current
    try {
      const work = { knowledge, clock, signal, transport: current.transport }
      const followed = followControl(work, { connected, persist: () => save(svid), log })
      const renewed = untilDue(svid, work).then(() => renewal.next(work))
      await Promise.race([followed, renewed.then(save)])
      log.info({ agentId: svid.id, serial: svid.serial }, "the agent's own SVID was renewed")
    } finally {
      over.abort()
      if (link === current) link = undefined
    }
  }

  /** After `error`: what is still wrong. Throws the remedy when the authority wants this agent no more. */
  async function recover(error: unknown, signal: AbortSignal): Promise<unknown> {
    const remedy = finalReason(error)
    if (remedy === undefined) return error
    const next = await renewal.instead(signal)
    if (next.kind === 'later') return next.error
    if (next.kind === 'another') return save(next.svid)
    state.forget()
    throw new IdentityError('ERR_DENIED', remedy, { cause: error })
  }

  async function follow(signal: AbortSignal): Promise<void> {
    const backoff = createBackoff({ first: 100, cap: 5000 })
    const connected = () => {
      backoff.reset()
      tell(undefined)
    }
    while (!signal.aborted) {
      try {
        await connect(signal, connected)
        continue
      } catch (error) {
        if (signal.aborted) return
        const problem = await recover(error, signal)
        if (problem !== undefined) tell(problem)
      }
      await clock.sleep(backoff.next(), { signal })
    }
  }

  return {
    request(params) {
      if (link !== undefined) return requestSvids(link.transport, params, log)
      return Promise.reject(new IdentityError('ERR_UNAVAILABLE', 'not connected to the authority'))
    },
    status: () => ({ svid, trouble }),
    onChange: (listener) => topic.subscribe(listener),
    loop: () => run(follow),
  }
}

// The agent's standing with its authority: it joins, keeps one long-lived stream, renews its own SVID, and
// reconnects with jittered backoff. While the authority is away everything else goes on with what is known.
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
import { requestJwt, requestSvids, requestWit, untilDue, type Work } from './calls.ts'
import type { AgentConfig } from './config.ts'
import type { Follow } from './control.ts'
import type { Knowledge } from './knowledge.ts'
import { createOwnIdentity } from './own-identity.ts'
import { createOwnRenewal } from './own-renewal.ts'
import type { AgentSvid } from './own-svid.ts'
import type { StateFile } from './state.ts'
import type { RequestSvids } from './svid-renewal.ts'

export interface Session {
  readonly request: RequestSvids
  readonly requestJwt: (
    wanted: Parameters<typeof requestJwt>[1],
  ) => Promise<Awaited<ReturnType<typeof requestJwt>>>
  readonly requestWit: (
    wanted: Parameters<typeof requestWit>[1],
  ) => Promise<Awaited<ReturnType<typeof requestWit>>>
  /** `svid` is undefined until this node has joined */
  status(): { readonly svid: AgentSvid | undefined; readonly trouble: string | undefined }
  onChange(listener: () => void): Disposable
  /** resolves once this node has an identity */
  readonly joined: Promise<void>
  /** Runs until stopped; rejects when the authority no longer wants this agent. */
  loop(): Running
}

export interface SessionOptions {
  readonly config: AgentConfig
  readonly addresses: Addresses
  readonly knowledge: Knowledge
  readonly state: StateFile
  /** what an earlier process has left */
  readonly svid: AgentSvid | undefined
  /** how this kind of authority is followed */
  readonly follow: Follow
  /** the authority wants this agent no more: nothing that it gave is served any longer */
  readonly forget: () => void
  readonly clock: Clock
  readonly log: Log
}

/** What the authority says when waiting will not help, and what a person does then. */
const remedies: Readonly<Partial<Record<Reason, string>>> = {
  [Reason.AGENT_BANNED]:
    'this agent is banned; delete it at the authority before it may join again',
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

/** after so many failed attempts the configured roots are tried: the authority may have new ones */
const attemptsBeforeRoots = 3

/** Who waits for the first identity waits no longer than the loop runs. */
async function settling(loop: Promise<void>, joined: PromiseWithResolvers<void>): Promise<void> {
  try {
    await loop
    joined.reject(new Error('the agent has stopped'))
  } catch (error) {
    joined.reject(error)
    throw error
  }
}

function withLink<W, T>(
  current: () => AuthorityLink | undefined,
  call: (link: AuthorityLink, wanted: W) => Promise<T>,
) {
  return (wanted: W): Promise<T> => {
    const link = current()
    if (link !== undefined) return call(link, wanted)
    const message = 'not connected to the authority'
    return Promise.reject(new IdentityError('ERR_UNAVAILABLE', message, { retryAfter: 1000 }))
  }
}

export function createSession(options: SessionOptions): Session {
  const { config, addresses, knowledge, state, clock, log } = options
  const standing = createStanding(options)
  const { own } = standing
  const joined = Promise.withResolvers<void>()
  joined.promise.catch(() => {})
  const renewal = createOwnRenewal({ config, addresses, knowledge, clock, log })
  let link: AuthorityLink | undefined

  /** One connection: until it breaks, or until the SVID it was opened with was renewed. */
  async function connect(stop: AbortSignal): Promise<void> {
    const svid = await own.good(stop)
    joined.resolve()
    const over = new AbortController()
    const signal = AbortSignal.any([stop, over.signal])
    const to = { address: addresses.current(), bundle: knowledge.bundle() }
    using current = openLink({ ...to, svid, now: clock.now })
    link = current
    try {
      const work: Work = { knowledge, clock, signal, transport: current.transport }
      const persist = () => own.save(own.svid() ?? svid)
      const followed = options.follow(work, { connected: standing.connected, persist, log })
      const renewed = untilDue(svid, work).then(() => renewal.next(work))
      const next = await Promise.race([followed, renewed])
      own.save(next)
      log.info({ agentId: next.id, serial: next.serial }, "the agent's own SVID was renewed")
    } finally {
      over.abort()
      if (link === current) link = undefined
    }
  }

  /** After `error`: what is still wrong. Throws the remedy when the authority wants this agent no more. */
  async function recover(error: unknown, signal: AbortSignal): Promise<unknown> {
    const remedy = finalReason(error)
    if (remedy === undefined) {
      if (standing.failures() % attemptsBeforeRoots === attemptsBeforeRoots - 1)
        await own.findRoots(signal)
      return error
    }
    const next = await renewal.instead(signal)
    if (next.kind === 'later') return next.error
    if (next.kind === 'another') return own.save(next.svid)
    state.forget()
    options.forget()
    throw new IdentityError('ERR_DENIED', remedy, { cause: error })
  }

  async function follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await connect(signal)
        continue
      } catch (error) {
        if (signal.aborted) return
        if (own.svid() === undefined) throw error
        const problem = await recover(error, signal)
        if (problem !== undefined) standing.lost(problem)
      }
      await clock.sleep(standing.backoff.next(), { signal })
    }
  }

  const current = () => link
  return {
    request: withLink(current, ({ transport }, params) => requestSvids(transport, params, log)),
    requestJwt: withLink(current, ({ transport }, wanted) => requestJwt(transport, wanted)),
    requestWit: withLink(current, ({ transport }, wanted) => requestWit(transport, wanted)),
    status: () => ({ svid: own.svid(), trouble: standing.trouble() }),
    onChange: standing.onChange,
    joined: joined.promise,
    loop: () => run((signal) => settling(follow(signal), joined)),
  }
}

/** Whether the authority is there, in the words of the log and of the status. */
function createStanding(options: SessionOptions) {
  const { addresses, log } = options
  const topic = createTopic<void>()
  const backoff = createBackoff({ first: 100, cap: 5000 })
  let trouble: string | undefined = 'not connected yet'
  let failures = 0
  const own = createOwnIdentity({
    ...options,
    onTrouble(text) {
      trouble = text
      topic.publish()
    },
  })
  return {
    own,
    backoff,
    trouble: () => trouble,
    failures: () => failures,
    onChange: (listener: () => void) => topic.subscribe(listener),
    connected() {
      backoff.reset()
      failures = 0
      if (trouble === undefined) return
      trouble = undefined
      log.info({ agentId: own.svid()?.id }, 'connected to the authority')
      topic.publish()
    },
    lost(problem: unknown) {
      log.warn({ err: problem }, 'the connection to the authority is lost; workloads go on')
      addresses.fail()
      failures++
      trouble = textOf(problem)
      topic.publish()
    },
  }
}

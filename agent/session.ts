// The agent's standing with its authority, for those who serve: who this agent is, what may be asked of the
// authority now. What connects is loaded once there is time for it: workloads are served before.
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { aborted, createTopic, type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { Addresses } from './addresses.ts'
import type { AuthorityLink } from './authority.ts'
import type { requestJwt, requestWit } from './calls.ts'
import type { AgentConfig } from './config.ts'
import type { Follow, Following } from './control.ts'
import { type AgentCounts, counted, type RequestKind } from './counts.ts'
import type { Knowledge } from './knowledge.ts'
import { createOwnIdentity } from './own-identity.ts'
import type { AgentSvid } from './own-svid.ts'
import type { StateFile } from './state.ts'
import type { RequestSvids } from './svid-renewal.ts'

export interface Status {
  /** undefined until this node has joined */
  readonly svid: AgentSvid | undefined
  readonly trouble: string | undefined
  /** why the disk does not have that SVID, and the roots of now */
  readonly unsaved: string | undefined
}

export interface Session {
  readonly request: RequestSvids
  readonly requestJwt: (
    wanted: Parameters<typeof requestJwt>[1],
  ) => Promise<Awaited<ReturnType<typeof requestJwt>>>
  readonly requestWit: (
    wanted: Parameters<typeof requestWit>[1],
  ) => Promise<Awaited<ReturnType<typeof requestWit>>>
  status(): Status
  onChange(listener: () => void): Disposable
  /** resolves once this node has an identity */
  readonly joined: Promise<void>
  /**
   * Resolves once the authority has said something to this process, or cannot be reached: proxies go on with what
   * they have, which may be newer than what an earlier process has left on the disk. Rejects when `signal` is aborted.
   */
  untilHeard(signal: AbortSignal): Promise<void>
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
  readonly follow: () => Promise<Follow>
  /** the authority wants this agent no more: nothing that it gave is served any longer */
  readonly forget: () => void
  /** see Following */
  readonly told: Following['told']
  readonly counts: Pick<AgentCounts, 'requests'>
  readonly tracer: Tracer
  readonly clock: Clock
  readonly log: Log
}

/** milliseconds: an authority that says nothing for so long is away */
const longestUnheard = 2000

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

type Calls = typeof import('./calls.ts')

function withLink<W, T>(
  current: () => AuthorityLink | undefined,
  call: (calls: Calls, link: AuthorityLink, wanted: W) => Promise<T>,
) {
  return async (wanted: W): Promise<T> => {
    const link = current()
    if (link !== undefined) return await call(await import('./calls.ts'), link, wanted)
    const message = 'not connected to the authority'
    throw new IdentityError('ERR_UNAVAILABLE', message, { retryAfter: 1000 })
  }
}

export function createSession(options: SessionOptions): Session {
  const { clock, log } = options
  const standing = createStanding(options)
  const joined = Promise.withResolvers<void>()
  joined.promise.catch(() => {})
  let link: AuthorityLink | undefined

  async function connect(signal: AbortSignal): Promise<void> {
    const { stayConnected } = await import('./connection.ts')
    const use = (next: AuthorityLink | undefined) => {
      link = next
    }
    await stayConnected({ ...options, standing, joined: joined.resolve, use }, signal)
  }

  const current = () => link
  const isNo = (error: unknown) => hasCode(error, 'ERR_DENIED')
  const counting =
    <W, T>(kind: RequestKind, ask: (wanted: W) => Promise<T>) =>
    (wanted: W) =>
      counted(options.counts.requests, { kind, isNo }, () => ask(wanted))
  return {
    request: withLink(current, (calls, { transport }, params) =>
      calls.requestSvids(transport, params, log),
    ),
    requestJwt: counting(
      'jwt',
      withLink(current, (calls, { transport }, wanted) => calls.requestJwt(transport, wanted)),
    ),
    requestWit: counting(
      'wit',
      withLink(current, (calls, { transport }, wanted) => calls.requestWit(transport, wanted)),
    ),
    status() {
      const { own, trouble } = standing
      return { svid: own.svid(), trouble: trouble(), unsaved: own.unsaved() }
    },
    onChange: standing.onChange,
    joined: joined.promise,
    untilHeard: standing.untilHeard,
    loop: () =>
      run((signal) => {
        clock.sleep(longestUnheard, { signal }).then(standing.heard, () => {})
        return settling(connect(signal), joined)
      }),
  }
}

export type Standing = ReturnType<typeof createStanding>

/** Whether the authority is there, in the words of the log and of the status. */
function createStanding(options: SessionOptions) {
  const { addresses, log } = options
  const topic = createTopic<void>()
  const backoff = createBackoff({ first: 100, cap: 5000 })
  const { promise: firstWord, resolve: heard } = Promise.withResolvers<void>()
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
    heard,
    async untilHeard(signal: AbortSignal): Promise<void> {
      using stopped = aborted(signal)
      await Promise.race([firstWord, stopped.promise])
    },
    connected() {
      heard()
      backoff.reset()
      failures = 0
      if (trouble === undefined) return
      trouble = undefined
      log.info({ agentId: own.svid()?.id }, 'connected to the authority')
      topic.publish()
    },
    /** `text` is what the status says of it. */
    lost(problem: unknown, text: string) {
      log.warn({ err: problem }, 'the connection to the authority is lost; workloads go on')
      addresses.fail()
      failures++
      if (failures >= addresses.count) heard()
      trouble = text
      topic.publish()
    },
  }
}

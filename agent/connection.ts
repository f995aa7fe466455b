// One connection to the authority after the other: each renews the agent's own SVID, follows what the authority
// says, and is opened again with jittered backoff. Meanwhile everything else goes on with what is known.
import { ConnectError } from '@connectrpc/connect'
import { PermissionDeniedDetails_Reason as Reason } from '../proto/gen/spire/api/types/status_pb.js'
import { explain, IdentityError } from '../spiffe/errors.ts'
import { type AuthorityLink, openLink } from './authority.ts'
import { reasonsIn } from './ban.ts'
import { untilDue, type Work } from './calls.ts'
import { createOwnRenewal } from './own-renewal.ts'
import type { AgentSvid } from './own-svid.ts'
import type { SessionOptions, Standing } from './session.ts'

export interface ConnectionOptions extends SessionOptions {
  readonly standing: Standing
  /** this node has an identity */
  readonly joined: () => void
  /** requests go over this one from now on */
  readonly use: (link: AuthorityLink | undefined) => void
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
  return reasonsIn(error)
    .map((reason) => remedies[reason])
    .find((remedy) => remedy !== undefined)
}

/** A ConnectError says itself what its cause says. */
function textOf(problem: unknown): string {
  return problem instanceof ConnectError ? problem.message : explain(problem)
}

/** after so many failed attempts the configured roots are tried: the authority may have new ones */
const attemptsBeforeRoots = 3

/** Runs until `stop` is aborted; throws the remedy when the authority wants this agent no more. */
export async function stayConnected(options: ConnectionOptions, stop: AbortSignal): Promise<void> {
  const { config, addresses, knowledge, state, standing, told, counts, tracer, clock, log } =
    options
  const { own } = standing
  const renewal = createOwnRenewal({ config, addresses, knowledge, counts, tracer, clock, log })
  const follow = await options.follow()

  /** One connection: until it breaks, or until the SVID it was opened with was renewed. */
  async function connect(): Promise<void> {
    const svid = await own.good(stop)
    options.joined()
    const over = new AbortController()
    const signal = AbortSignal.any([stop, over.signal])
    const to = { address: addresses.current(), bundle: knowledge.bundle() }
    using link = openLink({ ...to, svid, now: clock.now, tracer })
    options.use(link)
    try {
      const work: Work = { knowledge, clock, signal, transport: link.transport }
      const { connected } = standing
      const followed = follow(work, { connected, persist: own.persist, told, log })
      await Promise.race([followed, renewed(svid, work)])
    } finally {
      over.abort()
      options.use(undefined)
    }
  }

  async function renewed(svid: AgentSvid, work: Work): Promise<void> {
    await untilDue(svid, work)
    const next = await renewal.next(work)
    await own.keep(next, work.signal)
    log.info({ agentId: next.id, serial: next.serial }, "the agent's own SVID was renewed")
  }

  /** After `error`: what is still wrong. Throws the remedy when the authority wants this agent no more. */
  async function recover(error: unknown): Promise<unknown> {
    const remedy = finalReason(error)
    if (remedy === undefined) {
      if (standing.failures() % attemptsBeforeRoots === attemptsBeforeRoots - 1)
        await own.findRoots(stop)
      return error
    }
    const next = await renewal.instead(stop)
    if (next.kind === 'later') return next.error
    if (next.kind === 'another') return own.take(next.svid)
    state.forget()
    options.forget()
    throw new IdentityError('ERR_DENIED', remedy, { cause: error })
  }

  while (!stop.aborted) {
    try {
      await connect()
      continue
    } catch (error) {
      if (stop.aborted) return
      if (own.svid() === undefined) throw error
      const problem = await recover(error)
      if (problem !== undefined) standing.lost(problem, textOf(problem))
    }
    await clock.sleep(standing.backoff.next(), { signal: stop })
  }
}

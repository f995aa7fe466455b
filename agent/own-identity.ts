// Who this agent is to its authority: the SVID it has, another one by joining, the roots it believes.
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { bundleSourceOf, type X509Bundle } from '../spiffe/bundle.ts'
import { explain } from '../spiffe/errors.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { Addresses } from './addresses.ts'
import type { AgentConfig } from './config.ts'
import type { AgentCounts } from './counts.ts'
import type { Knowledge } from './knowledge.ts'
import type { AgentSvid } from './own-svid.ts'
import type { StateFile } from './state.ts'

export interface OwnIdentity {
  /** undefined until this node has joined */
  svid(): AgentSvid | undefined
  /** Uses `next` from now on, from memory when the disk does not take it. */
  take(next: AgentSvid): void
  /**
   * Uses `next` once it is on the disk: after a crash the agent is who the authority has heard last. Waits
   * for a disk that is full, until what it has is about to expire.
   */
  keep(next: AgentSvid, signal: AbortSignal): Promise<void>
  /** Whether the roots of now are on the disk, tried just now. */
  persist(): boolean
  /** why the disk does not have what was to be on it; undefined when it has */
  unsaved(): string | undefined
  /** An SVID that is good now: the one it has, or another one by joining, however long that takes. */
  good(signal: AbortSignal): Promise<AgentSvid>
  /** Asks for the roots by what the configuration believes: those on the disk may all be gone by now. */
  findRoots(signal: AbortSignal): Promise<void>
}

export interface OwnIdentityOptions {
  readonly config: AgentConfig
  readonly addresses: Addresses
  readonly knowledge: Knowledge
  readonly state: StateFile
  readonly svid: AgentSvid | undefined
  readonly onTrouble: (text: string) => void
  readonly counts: Pick<AgentCounts, 'requests'>
  readonly tracer: Tracer
  readonly clock: Clock
  readonly log: Log
}

/** milliseconds between two tries to write to a disk that is full */
const diskRetry = 5000
/** the part of its life at whose end an SVID is replaced by one that is in memory only */
const lastPart = 1 / 10

const outlived =
  "this agent's certificate has expired, or its authority is gone; put a new join token where joinTokenFile says"

/** Whether the authority can still believe it: not expired, and of an authority that this agent believes too. */
function isGood({ chain, notAfter }: AgentSvid, bundle: X509Bundle, now: number): boolean {
  if (notAfter <= now) return false
  try {
    verifySvid(chain, bundleSourceOf(bundle), { now })
    return true
  } catch {
    return false
  }
}

/** The roots that may vouch for the authority still. */
function untainted(knowledge: Knowledge): X509Bundle {
  const { trustDomain, authorities } = knowledge.bundle()
  const taints = knowledge.taints()
  const isUntainted = ({ subject }: { subject: Uint8Array }) =>
    taints.ofAuthority(subject) === undefined
  return { trustDomain, authorities: authorities.filter(isUntainted) }
}

export function createOwnIdentity(options: OwnIdentityOptions): OwnIdentity {
  const { config, addresses, knowledge, state, onTrouble, counts, tracer, clock, log } = options
  let svid = options.svid

  let unsaved: string | undefined

  /** Whether it is on the disk now. */
  function save(next: AgentSvid): boolean {
    try {
      state.save({ svid: next, bundle: knowledge.bundle() })
      if (unsaved !== undefined) log.info("this agent's own SVID is on the disk again")
      unsaved = undefined
      return true
    } catch (error) {
      if (unsaved === undefined)
        log.error({ err: error }, "this agent's own SVID is in memory only")
      unsaved = explain(error)
      return false
    }
  }

  function take(next: AgentSvid): void {
    svid = next
    save(next)
  }

  async function keep(next: AgentSvid, signal: AbortSignal): Promise<void> {
    const { notAfter, receivedAt } = svid ?? next
    const end = notAfter - (notAfter - receivedAt) * lastPart
    while (!save(next)) {
      const left = end - clock.now()
      if (left <= 0) break
      await clock.sleep(Math.min(diskRetry, left), { signal })
    }
    svid = next
  }

  async function join(signal: AbortSignal): Promise<AgentSvid> {
    const former = svid === undefined ? undefined : { svid, bundle: untainted(knowledge) }
    const { joinAtLast } = await import('./joining.ts')
    const next = await joinAtLast(
      {
        ...{ config, addresses, state, former, counts, tracer, clock, log },
        onTrouble: (error) =>
          onTrouble(former === undefined ? explain(error) : `${outlived} (${explain(error)})`),
      },
      signal,
    )
    knowledge.begin(next.bundle)
    take(next.svid)
    return next.svid
  }

  return {
    svid: () => svid,
    ...{ take, keep },
    persist: () => svid !== undefined && save(svid),
    unsaved: () => unsaved,
    async good(signal) {
      const isEnough = svid !== undefined && isGood(svid, knowledge.bundle(), clock.now())
      return isEnough && svid !== undefined ? svid : await join(signal)
    },
    async findRoots(signal) {
      try {
        const { currentRoots } = await import('./join.ts')
        const way = { address: addresses.current(), clock, signal, tracer }
        const roots = await currentRoots(config, way)
        knowledge.begin(roots)
        log.info({ authorities: roots.authorities.length }, 'the roots were asked for again')
      } catch (error) {
        log.debug({ err: error }, 'the roots cannot be asked for')
      }
    },
  }
}

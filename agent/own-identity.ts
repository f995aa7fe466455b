// Who this agent is to its authority: the SVID it has, another one by joining, the roots it believes.
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { bundleSourceOf, type X509Bundle } from '../spiffe/bundle.ts'
import { explain } from '../spiffe/errors.ts'
import { verifySvid } from '../spiffe/svid.ts'
import type { Addresses } from './authority.ts'
import type { AgentConfig } from './config.ts'
import { currentRoots } from './join.ts'
import { joinAtLast, type Patience } from './joining.ts'
import type { Knowledge } from './knowledge.ts'
import type { AgentSvid } from './own-svid.ts'
import type { StateFile } from './state.ts'

export interface OwnIdentity {
  /** undefined until this node has joined */
  svid(): AgentSvid | undefined
  /** Durable before it returns, with the roots as they are now. */
  save(next: AgentSvid): void
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
  readonly clock: Clock
  readonly log: Log
}

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

export function createOwnIdentity(options: OwnIdentityOptions): OwnIdentity {
  const { config, addresses, knowledge, state, onTrouble, clock, log } = options
  let svid = options.svid

  function save(next: AgentSvid): void {
    svid = next
    state.save({ svid, bundle: knowledge.bundle() })
  }

  async function join(signal: AbortSignal): Promise<AgentSvid> {
    // with workloads to serve it is not worth ending for
    const patience: Patience =
      svid === undefined
        ? { with: 'outages', onTrouble: (error) => onTrouble(explain(error)) }
        : { with: 'refusals', onTrouble: (error) => onTrouble(`${outlived} (${explain(error)})`) }
    const next = await joinAtLast({ config, addresses, state, clock, log }, patience, signal)
    knowledge.begin(next.bundle)
    save(next.svid)
    return next.svid
  }

  return {
    svid: () => svid,
    save,
    async good(signal) {
      const isEnough = svid !== undefined && isGood(svid, knowledge.bundle(), clock.now())
      return isEnough && svid !== undefined ? svid : await join(signal)
    },
    async findRoots(signal) {
      try {
        const roots = await currentRoots(config, { address: addresses.current(), clock, signal })
        knowledge.begin(roots)
        log.info({ authorities: roots.authorities.length }, 'the roots were asked for again')
      } catch (error) {
        log.debug({ err: error }, 'the roots cannot be asked for')
      }
    },
  }
}

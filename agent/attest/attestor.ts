// What an attestor is, and how several of them answer as one.
import { explain, IdentityError } from '../../spiffe/errors.ts'
import type { Demand } from './demand.ts'
import type { PeerProcess } from './peer-credentials.ts'
import type { Credentials, Proc } from './proc.ts'

export interface Attestation {
  /** `type:value` */
  readonly selectors: ReadonlySet<string>
  /** what is absent, and why; for people */
  readonly missing: readonly string[]
}

export interface AttestOptions {
  readonly signal: AbortSignal
}

export interface Attestor {
  /** of its selectors */
  readonly type: string
  /**
   * What it finds out about the process that has this pid: whether that is still `process` is checked
   * afterwards. No selectors is an answer; throws when it cannot tell.
   */
  attest(process: PeerProcess, demand: Demand, options: AttestOptions): Promise<Attestation>
}

export interface WorkloadAttestation extends Attestation {
  /** types of attestors that could not tell: who asks for theirs may have them all the same */
  readonly failed: ReadonlySet<string>
}

export interface WorkloadAttestor {
  /**
   * All that is asked for, as it was at one moment. Throws ERR_DENIED when the process has ended or is
   * another user's by now, ERR_UNAVAILABLE when no attestor could tell.
   */
  attest(process: PeerProcess, demand: Demand, options: AttestOptions): Promise<WorkloadAttestation>
}

const retryAfter = 1000
/** how often a process may become something else while it is looked at */
const mostTries = 3

function credentialsOf(proc: Proc, { pid }: PeerProcess): Credentials | undefined {
  try {
    return proc.credentials(pid)
  } catch {
    // /proc may be mounted so that it hides the processes of others
    return undefined
  }
}

/**
 * Its socket may be in other hands: a process that connects, hands its socket to a child and then runs a
 * setuid program would lend the child the identity of that program. Who was root has nothing to gain.
 */
function refuseOtherUser({ pid, uid, gid }: PeerProcess, now: Credentials | undefined): void {
  if (now === undefined || uid === 0 || (now.uid === uid && now.gid === gid)) return
  throw new IdentityError(
    'ERR_DENIED',
    `process ${pid} has changed its user or group since it connected: it has to connect again`,
  )
}

function unavailable(pid: number, why: string): never {
  throw new IdentityError('ERR_UNAVAILABLE', `cannot tell what process ${pid} is: ${why}`, {
    retryAfter,
  })
}

export function createWorkloadAttestor(
  attestors: readonly Attestor[],
  proc: Proc,
): WorkloadAttestor {
  /** What the process is now; throws unless it is still the one that connected. */
  function stateOf(peer: PeerProcess): string {
    const state = proc.look(peer.pid)
    const credentials = credentialsOf(proc, peer)
    // who is alive after it was read was alive before
    if (!peer.isAlive()) throw new IdentityError('ERR_DENIED', `process ${peer.pid} has ended`)
    refuseOtherUser(peer, credentials)
    return state
  }

  async function ask(peer: PeerProcess, demand: Demand, options: AttestOptions) {
    const asked = attestors.filter(({ type }) => demand.type(type))
    const answers = await Promise.allSettled(asked.map((it) => it.attest(peer, demand, options)))
    const selectors = new Set<string>()
    const missing: string[] = []
    const failed = new Set<string>()
    answers.forEach((answer, i) => {
      const { type = '' } = asked[i] ?? {}
      if (answer.status === 'rejected') {
        failed.add(type)
        missing.push(`${type} (${explain(answer.reason)})`)
      } else {
        for (const selector of answer.value.selectors) selectors.add(selector)
        missing.push(...answer.value.missing)
      }
    })
    return {
      selectors,
      missing,
      failed,
      isSilent: asked.length > 0 && failed.size === asked.length,
    }
  }

  return {
    async attest(peer, demand, options) {
      for (let tries = 0; tries < mostTries; tries++) {
        const before = stateOf(peer)
        const { isSilent, ...answer } = await ask(peer, demand, options)
        options.signal.throwIfAborted()
        // what was read of two programs, or in two cgroups, was never true at one moment
        if (stateOf(peer) !== before) continue
        if (isSilent) unavailable(peer.pid, answer.missing.join(', '))
        return answer
      }
      return unavailable(peer.pid, 'it keeps changing')
    },
  }
}

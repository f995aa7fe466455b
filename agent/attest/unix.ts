// Selectors of a local process: its user, its groups, its program. What this agent may not read of another
// user is absent, and said to be so.
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Attestor } from './attestor.ts'
import type { Names } from './names.ts'
import type { PeerProcess } from './peer-credentials.ts'
import type { Proc } from './proc.ts'
import type { ProgramHash } from './program-hash.ts'

export interface UnixOptions {
  readonly proc: Proc
  readonly names: Names
  /** undefined: programs are never read */
  readonly programHash: ProgramHash | undefined
}

/** milliseconds for the program to be read */
const hashTimeout = 10_000
const deleted = ' (deleted)'

/** Selectors as they are found, and what was not found. */
interface Findings {
  readonly selectors: Set<string>
  readonly missing: string[]
  /** Notes what `read` finds as selectors, or why there are none of `kind`. */
  add(kind: string, read: () => Promise<string[]> | string[]): Promise<void>
}

function createFindings(): Findings {
  const selectors = new Set<string>()
  const missing: string[] = []
  return {
    selectors,
    missing,
    async add(kind, read) {
      try {
        for (const value of await read()) selectors.add(`${kind}:${value}`)
      } catch (error) {
        const why = error instanceof IdentityError ? error.message : errnoOf(error)
        missing.push(`${kind} (${why})`)
      }
    },
  }
}

const listOf = (name: string | undefined) => (name === undefined ? [] : [name])

export function createUnixAttestor({ proc, names, programHash }: UnixOptions): Attestor {
  /** The path at which the program was when it was started: it stays what it is when its file is replaced. */
  function pathOf(pid: number): string {
    const path = proc.link(pid, 'exe')
    const isGone = path.endsWith(deleted) && proc.facts(proc.programFile(pid)).links === 0
    return isGone ? path.slice(0, -deleted.length) : path
  }

  async function addGroups({ add }: Findings, { pid }: PeerProcess): Promise<void> {
    let groups: readonly number[] = []
    await add('unix:supplementary_gid', () => {
      groups = proc.credentials(pid).groups
      return groups.map(String)
    })
    await add('unix:supplementary_group', () => groups.flatMap((gid) => listOf(names.group(gid))))
  }

  async function hashOf({ pid }: PeerProcess, signal: AbortSignal): Promise<string[]> {
    if (programHash === undefined)
      throw new IdentityError('ERR_CONFIG', 'hashLimit is 0: programs are not read')
    const soon = AbortSignal.any([signal, AbortSignal.timeout(hashTimeout)])
    return [await programHash(proc.programFile(pid), { signal: soon })]
  }

  /** Those of now; those with which it connected where /proc hides them. */
  function ids({ pid, uid, gid }: PeerProcess): { readonly uid: number; readonly gid: number } {
    try {
      return proc.credentials(pid)
    } catch {
      return { uid, gid }
    }
  }

  return {
    type: 'unix',
    async attest(peer, demand, { signal }) {
      const findings = createFindings()
      const { add, selectors, missing } = findings
      const { uid, gid } = ids(peer)
      await add('unix:uid', () => [String(uid)])
      await add('unix:gid', () => [String(gid)])
      await add('unix:user', () => listOf(names.user(uid)))
      await add('unix:group', () => listOf(names.group(gid)))
      await addGroups(findings, peer)
      await add('unix:path', () => [pathOf(peer.pid)])
      if (demand.kind('unix:sha256')) await add('unix:sha256', () => hashOf(peer, signal))
      return { selectors, missing }
    },
  }
}

// The SHA-256 of programs: each is read once, one after the other, and never a different file than the one
// whose version was noted.
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import type { Clock } from '../../runtime/clock.ts'
import { createTurns } from '../../runtime/lifecycle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { unlessAborted } from './patience.ts'
import type { FileFacts, Proc } from './proc.ts'

export interface ProgramHashOptions {
  readonly proc: Pick<Proc, 'facts'>
  /** bytes; larger programs are not read */
  readonly limit: number
  readonly clock: Clock
}

const mostKnown = 1024
const mostWaiting = 64
const chunk = 256 * 1024
/** a file may change again without another time of change: the clock of a file system is coarse */
const tooFresh = 2000

async function hashOf(file: FileHandle, size: number): Promise<string> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafe(chunk)
  for (let left = size; left > 0; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(chunk, left))
    if (bytesRead === 0) throw new IdentityError('ERR_RUNTIME', 'the program became shorter')
    hash.update(buffer.subarray(0, bytesRead))
    left -= bytesRead
  }
  return hash.digest('hex')
}

export type ProgramHash = (path: string, options: { signal: AbortSignal }) => Promise<string>

/** The digest in hex; throws when the program is too large or cannot be read. */
export function createProgramHash({ proc, limit, clock }: ProgramHashOptions): ProgramHash {
  const known = new Map<string, string>()
  // a file system that never answers holds up this queue, not the threads that Node reads with
  const inTurn = createTurns()
  let waiting = 0

  function demandSize({ size, isRegular }: FileFacts): void {
    if (!isRegular) throw new IdentityError('ERR_RUNTIME', 'the program is not a regular file')
    if (size > limit)
      throw new IdentityError('ERR_TOO_LARGE', `the program is over ${limit} bytes (hashLimit)`)
  }

  async function read(path: string): Promise<string> {
    await using file = await open(path)
    const opened = `/proc/self/fd/${file.fd}`
    const facts = proc.facts(opened)
    demandSize(facts)
    const hash = known.get(facts.version) ?? (await hashOf(file, facts.size))
    if (proc.facts(opened).version !== facts.version)
      throw new IdentityError('ERR_RUNTIME', 'the program changed while it was read')
    if (clock.now() - facts.changedAt > tooFresh) {
      if (known.size >= mostKnown) known.clear()
      known.set(facts.version, hash)
    }
    return hash
  }

  return async (path, { signal }) => {
    const facts = proc.facts(path)
    demandSize(facts)
    const hash = known.get(facts.version)
    if (hash !== undefined) return hash
    if (waiting >= mostWaiting)
      throw new IdentityError('ERR_EXHAUSTED', 'too many programs wait to be read')
    waiting++
    const work = inTurn(() => read(path)).finally(() => {
      waiting--
    })
    work.catch(() => {})
    return unlessAborted(work, signal)
  }
}

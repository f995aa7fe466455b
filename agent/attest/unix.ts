// Selectors of a local process: unix:uid, unix:gid, unix:path, unix:sha256. What this agent may not read
// of another uid is absent, and said to be so.
import { createHash } from 'node:crypto'
import { type BigIntStats, createReadStream } from 'node:fs'
import { readlink, stat } from 'node:fs/promises'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { PeerProcess } from './peer-credentials.ts'

export interface Attestation {
  /** `type:value` */
  readonly selectors: ReadonlySet<string>
  /** what is absent, and why; for people */
  readonly missing: readonly string[]
}

export interface UnixAttestor {
  /** Reads between two checks of the process. Throws ERR_DENIED when it ended meanwhile. */
  attest(peer: PeerProcess, options: { readonly withHash: boolean }): Promise<Attestation>
}

const largestProgram = 512n * 1024n * 1024n
const mostHashes = 256

function hashOf(path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const hash = createHash('sha256')
  createReadStream(path)
    .on('data', (chunk) => hash.update(chunk))
    .on('end', () => resolve(hash.digest('hex')))
    .on('error', reject)
  return promise
}

/** A file that was not touched since is not read again. */
function versionOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(':')
}

export function createUnixAttestor(): UnixAttestor {
  const hashes = new Map<string, Promise<string>>()

  async function sha256(exe: string): Promise<string> {
    const facts = await stat(exe, { bigint: true })
    if (facts.size > largestProgram)
      throw new IdentityError('ERR_TOO_LARGE', 'the program is larger than 512 MiB')
    const version = versionOf(facts)
    const known = hashes.get(version)
    if (known !== undefined) return known
    if (hashes.size >= mostHashes) hashes.clear()
    const made = hashOf(exe)
    hashes.set(version, made)
    made.catch(() => hashes.delete(version))
    return made
  }

  /** Adds `type:value`, or says why it is absent. */
  async function add(
    into: Set<string>,
    missing: string[],
    type: string,
    read: () => Promise<string>,
  ): Promise<void> {
    try {
      into.add(`${type}:${await read()}`)
    } catch (error) {
      const why = error instanceof IdentityError ? error.message : errnoOf(error)
      missing.push(`${type} (${why})`)
    }
  }

  return {
    async attest(peer, { withHash }) {
      const exe = `/proc/${peer.pid}/exe`
      const selectors = new Set([`unix:uid:${peer.uid}`, `unix:gid:${peer.gid}`])
      const missing: string[] = []
      await add(selectors, missing, 'unix:path', () => readlink(exe))
      if (withHash) await add(selectors, missing, 'unix:sha256', () => sha256(exe))
      if (!peer.isAlive()) {
        throw new IdentityError('ERR_DENIED', `process ${peer.pid} ended while it was looked at`)
      }
      return { selectors, missing }
    },
  }
}

// What /proc says of a process. Each read is about whoever has the pid then: callers check afterwards, by
// its pidfd, that the process they mean is still alive.
import { closeSync, openSync, readlinkSync, readSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { getSystemErrorName } from 'node:util'
import type { Clock } from '../../runtime/clock.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { type Libc, loadLibc } from './libc.ts'

export interface Credentials {
  /** effective, as SO_PEERCRED names them */
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
}

export interface FileFacts {
  /** changes whenever the file does, or another one takes its place */
  readonly version: string
  readonly size: number
  readonly links: number
  /** milliseconds since the epoch, by the file system's clock */
  readonly changedAt: number
  readonly isRegular: boolean
}

export interface Proc {
  text(pid: number | 'self', name: 'cgroup' | 'limits' | 'mountinfo' | 'status'): string
  link(pid: number | 'self', name: 'exe' | 'ns/user'): string
  /** Where the program that the process runs can be read, whatever its path is by now. */
  programFile(pid: number): string
  /** Throws when this agent may not see it. Never waits for a network or user-space file system. */
  facts(path: string): FileFacts
  credentials(pid: number): Credentials
  /** Program, users, groups and cgroup in one text, to be compared with an earlier one. Cheap. */
  look(pid: number): string
}

const mostArguments = 64 * 1024
/** milliseconds: it is memory of the process, which can make a reader wait */
const patience = 1000

async function readArguments(pid: number): Promise<readonly string[]> {
  const file = await open(`/proc/${pid}/cmdline`, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(mostArguments), 0, mostArguments, 0)
    return buffer.toString('utf8', 0, bytesRead).split('\0').slice(0, -1)
  } finally {
    await file.close()
  }
}

/** What a process says that it was started with; nothing when that cannot be read soon. Never rejects. */
export async function argumentsOf(
  pid: number,
  clock: Pick<Clock, 'sleep'>,
): Promise<readonly string[]> {
  const done = new AbortController()
  const late = clock.sleep(patience, { signal: done.signal }).then(
    () => [],
    () => [],
  )
  try {
    return await Promise.race([readArguments(pid).catch(() => []), late])
  } finally {
    done.abort()
  }
}

export interface ProcOptions {
  readonly libc?: Libc
  readonly root?: string
}

const atWorkingFolder = -100
const dontSync = 0x4000
const basicFacts = 0x7ff
const typeMask = 0xf000
const regular = 0x8000
// 65 536 groups take 700 KiB
const largestText = 1024 * 1024

/** A process cannot say that of itself: the kernel escapes what is in its name. */
export function credentialsIn(status: string): Credentials {
  const uid = /^Uid:\t\d+\t(\d+)\t/m.exec(status)?.[1]
  const gid = /^Gid:\t\d+\t(\d+)\t/m.exec(status)?.[1]
  const groups = /^Groups:\t([\d ]*)$/m.exec(status)?.[1]
  if (uid === undefined || gid === undefined || groups === undefined) {
    throw new IdentityError('ERR_RUNTIME', 'a /proc status without users and groups')
  }
  return {
    uid: Number(uid),
    gid: Number(gid),
    groups: groups.split(' ').filter(Boolean).map(Number),
  }
}

function createReader() {
  const buffer = Buffer.allocUnsafeSlow(largestText)
  /** The text stands in `buffer` until the next call. */
  function read(path: string): number {
    const fd = openSync(path, 'r')
    try {
      for (let size = 0; ; ) {
        const got = readSync(fd, buffer, size, largestText - size, null)
        if (got === 0) return size
        size += got
        if (size === largestText) throw new IdentityError('ERR_TOO_LARGE', `${path} is too large`)
      }
    } finally {
      closeSync(fd)
    }
  }
  return {
    text: (path: string) => buffer.toString('utf8', 0, read(path)),
    /** the lines of users and groups; less than all of the text is decoded */
    ids(path: string): string {
      const found = buffer.subarray(0, read(path))
      const start = found.indexOf('\nUid:')
      const groups = found.indexOf('\nGroups:', Math.max(start, 0))
      return found.toString('latin1', Math.max(start, 0), found.indexOf('\n', groups + 1))
    },
  }
}

function createFacts(libc: Libc) {
  const answer = Buffer.alloc(256)
  const ask = (path: string) =>
    libc.statx(atWorkingFolder, path, dontSync, basicFacts, answer) === 0 ? 0 : libc.errno()
  /** inode and size, times of change, device: struct statx in linux/stat.h */
  const version = () => {
    const part = (from: number, to: number) => answer.toString('latin1', from, to)
    return part(32, 48) + part(96, 128) + part(136, 144)
  }
  return {
    /** its version, or why there is none */
    version(path: string): string {
      const errno = ask(path)
      return errno === 0 ? version() : `errno ${errno}`
    },
    of(path: string): FileFacts {
      const errno = ask(path)
      if (errno !== 0) {
        const code = getSystemErrorName(-errno)
        throw Object.assign(new Error(`${code}: statx ${path}`), { code })
      }
      return {
        version: version(),
        size: Number(answer.readBigUInt64LE(40)),
        links: answer.readUInt32LE(16),
        changedAt: Number(answer.readBigInt64LE(96)) * 1000,
        isRegular: (answer.readUInt16LE(28) & typeMask) === regular,
      }
    },
  }
}

export function createProc({ libc = loadLibc(), root = '/proc' }: ProcOptions = {}): Proc {
  const reader = createReader()
  const facts = createFacts(libc)

  function part(read: () => string): string {
    try {
      return read()
    } catch (error) {
      return errnoOf(error)
    }
  }

  return {
    text: (pid, name) => reader.text(`${root}/${pid}/${name}`),
    link: (pid, name) => readlinkSync(`${root}/${pid}/${name}`),
    programFile: (pid) => `${root}/${pid}/exe`,
    facts: facts.of,
    credentials: (pid) => credentialsIn(reader.text(`${root}/${pid}/status`)),
    // the start time is not looked at: a pidfd is of one process, and a program keeps its start time
    look: (pid) =>
      [
        facts.version(`${root}/${pid}/exe`),
        part(() => reader.ids(`${root}/${pid}/status`)),
        part(() => reader.text(`${root}/${pid}/cgroup`)),
      ].join('\0'),
  }
}

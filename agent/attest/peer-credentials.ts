// Who is at the other end of a unix socket: SO_PEERCRED, pinned by SO_PEERPIDFD (Linux 6.5) or
// pidfd_open. A pidfd is that process and no other, whoever has its pid by then.
import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { IdentityError } from '../../spiffe/errors.ts'
import { errnos, type Libc, loadLibc } from './libc.ts'
import { type Credentials, createProc, type Proc } from './proc.ts'

/** A process that connected, pinned until it is disposed. */
export interface PeerProcess extends Disposable {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** False once the very process that connected has ended, whoever has its pid by then. */
  isAlive(): boolean
}

/** The seam: the real one asks the kernel. Throws ERR_DENIED when it cannot tell, or the peer is gone. */
export type IdentifyPeer = (socket: Socket) => PeerProcess

export interface Processes {
  readonly identify: IdentifyPeer
  /** The process that has `pid` now. Throws ERR_NOT_FOUND when there is none. */
  open(pid: number): PeerProcess
  /** Those of `processes` that have ended, found by one system call. */
  ended(processes: Iterable<PeerProcess>): PeerProcess[]
}

export interface ProcessesOptions {
  readonly libc?: Libc
  readonly proc?: Proc
}

const solSocket = 1
const soPeerCred = 17
const soPeerPidfd = 77
const sysPidfdOpen = 434
const pollIn = 1
const pollEntry = 8
const mostInterruptions = 100

function refuse(why: string): never {
  throw new IdentityError('ERR_DENIED', `the caller cannot be identified: ${why}`)
}

function exhausted(): never {
  throw new IdentityError('ERR_EXHAUSTED', 'this agent has no file descriptor left for a caller')
}

/** The descriptor of a socket that Node owns. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  return typeof fd === 'number' && fd >= 0 ? fd : refuse('the socket is closed')
}

/**
 * Which of some pidfds, by position, are of processes that have ended: one becomes readable when its process
 * ends, before anything can get the pid again.
 */
function createPoll(libc: Libc): (pidfds: readonly number[]) => number[] {
  let buffer = Buffer.alloc(64 * pollEntry)
  return (pidfds) => {
    const size = pidfds.length * pollEntry
    if (size > buffer.length) buffer = Buffer.alloc(2 * size)
    pidfds.forEach((pidfd, i) => {
      buffer.writeInt32LE(pidfd, i * pollEntry)
      // the events asked for, and no answer yet
      buffer.writeInt32LE(pollIn, i * pollEntry + 4)
    })
    let found = libc.poll(buffer, pidfds.length, 0)
    // a signal to this process says nothing about others
    for (let again = 0; found < 0 && again < mostInterruptions; again++) {
      if (libc.errno() !== errnos.interrupted) break
      found = libc.poll(buffer, pidfds.length, 0)
    }
    if (found === 0) return []
    // a poll that failed says nothing, so it is taken to say the worst
    return pidfds.flatMap((_, i) =>
      found > 0 && buffer.readInt16LE(i * pollEntry + 6) === 0 ? [] : [i],
    )
  }
}

/** Makes the functions that identify callers; loads libc once. */
export function createProcesses(options: ProcessesOptions = {}): Processes {
  const { libc = loadLibc() } = options
  const { proc = createProc({ libc }) } = options
  const value = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  const poll = createPoll(libc)
  const pidfds = new WeakMap<PeerProcess, number>()

  function option(fd: number, name: number, size: number): boolean {
    length.writeUInt32LE(size)
    return libc.getsockopt(fd, solSocket, name, value, length) === 0
  }

  function pidfdOf(fd: number, pid: number): number {
    if (option(fd, soPeerPidfd, 4)) return value.readInt32LE(0)
    const error = libc.errno()
    if (error === errnos.tooManyFiles) exhausted()
    // any other error than "no such option" is about the peer: by its pid a stranger would be found
    const isOld = error === errnos.unknownOption
    // before Linux 6.5: there is a moment in which the pid could be reused; the check below narrows it
    const pidfd = isOld ? libc.syscall(sysPidfdOpen, pid, 0) : -1
    return pidfd >= 0 ? pidfd : refuse(`process ${pid} has ended`)
  }

  function pin(pidfd: number, who: Pick<PeerProcess, 'pid' | 'uid' | 'gid'>): PeerProcess {
    let isOpen = true
    const process: PeerProcess = {
      ...who,
      isAlive: () => isOpen && poll([pidfd]).length === 0,
      [Symbol.dispose]() {
        if (isOpen) closeSync(pidfd)
        isOpen = false
        pidfds.delete(process)
      },
    }
    pidfds.set(process, pidfd)
    return process
  }

  function visible(pid: number): Credentials {
    try {
      return proc.credentials(pid)
    } catch (cause) {
      throw new IdentityError('ERR_NOT_FOUND', `process ${pid} cannot be seen`, { cause })
    }
  }

  return {
    identify(socket) {
      const fd = descriptorOf(socket)
      if (!option(fd, soPeerCred, 12)) refuse('SO_PEERCRED failed')
      const [pid, uid, gid] = [value.readInt32LE(0), value.readUInt32LE(4), value.readUInt32LE(8)]
      // 0 is a process of another pid namespace: nothing in /proc would be about it
      if (pid <= 0) refuse('its process is not visible here')
      const process = pin(pidfdOf(fd, pid), { pid, uid, gid })
      if (process.isAlive()) return process
      process[Symbol.dispose]()
      return refuse(`process ${pid} has ended`)
    },
    open(pid) {
      const pidfd = libc.syscall(sysPidfdOpen, pid, 0)
      if (pidfd < 0) throw new IdentityError('ERR_NOT_FOUND', `there is no process ${pid}`)
      using unread = new DisposableStack()
      unread.defer(() => closeSync(pidfd))
      const { uid, gid } = visible(pid)
      if (poll([pidfd]).length > 0)
        throw new IdentityError('ERR_NOT_FOUND', `process ${pid} has ended`)
      unread.move()
      return pin(pidfd, { pid, uid, gid })
    },
    ended(processes) {
      const pinned = [...processes]
      return poll(pinned.map((it) => pidfds.get(it) ?? -1)).flatMap((i) => pinned[i] ?? [])
    },
  }
}

/** The function that identifies callers, alone. */
export function createIdentify(libc: Libc = loadLibc()): IdentifyPeer {
  return createProcesses({ libc }).identify
}

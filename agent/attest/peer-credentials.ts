// Who is at the other end of a unix socket: SO_PEERCRED, pinned by SO_PEERPIDFD (Linux 6.5) or
// pidfd_open. The one file that calls into libc.
import { closeSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Socket } from 'node:net'
import { IdentityError } from '../../spiffe/errors.ts'

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

const solSocket = 1
const soPeerCred = 17
const soPeerPidfd = 77
const sysPidfdOpen = 434
const pollIn = 1

interface Libc {
  getsockopt(fd: number, level: number, name: number, value: Buffer, length: Buffer): number
  syscall(number: number, pid: number, flags: number): number
  poll(descriptors: Buffer, count: number, timeout: number): number
}

function loadLibc(): Libc {
  // CommonJS with a native part: loaded by its own resolver, when the agent starts and not before
  const koffi: typeof import('koffi') = createRequire(import.meta.url)('koffi')
  const lib = koffi.load(null)
  return {
    getsockopt: lib.func('int getsockopt(int, int, int, _Out_ void *, _Inout_ void *)'),
    syscall: lib.func('long syscall(long, long, long)'),
    poll: lib.func('int poll(_Inout_ void *, unsigned long, int)'),
  }
}

function refuse(why: string): never {
  throw new IdentityError('ERR_DENIED', `the caller cannot be identified: ${why}`)
}

/** The descriptor of a socket that Node owns. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  return typeof fd === 'number' && fd >= 0 ? fd : refuse('the socket is closed')
}

/** Makes the function that identifies callers; loads libc once. */
export function createIdentify(libc: Libc = loadLibc()): IdentifyPeer {
  const value = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  const polled = Buffer.alloc(8)

  function option(fd: number, name: number, size: number): boolean {
    length.writeUInt32LE(size)
    return libc.getsockopt(fd, solSocket, name, value, length) === 0
  }

  function pidfdOf(fd: number, pid: number): number {
    if (option(fd, soPeerPidfd, 4)) return value.readInt32LE(0)
    // before Linux 6.5: there is a moment in which the pid could be reused; the check below narrows it
    const pidfd = libc.syscall(sysPidfdOpen, pid, 0)
    return pidfd >= 0 ? pidfd : refuse(`process ${pid} has ended`)
  }

  /** A pidfd becomes readable when its process ends, before anything can get the pid again. */
  function hasEnded(pidfd: number): boolean {
    polled.writeInt32LE(pidfd, 0)
    polled.writeInt16LE(pollIn, 4)
    polled.writeInt16LE(0, 6)
    return libc.poll(polled, 1, 0) !== 0
  }

  return (socket) => {
    const fd = descriptorOf(socket)
    if (!option(fd, soPeerCred, 12)) refuse('SO_PEERCRED failed')
    const [pid, uid, gid] = [value.readInt32LE(0), value.readUInt32LE(4), value.readUInt32LE(8)]
    // 0 is a process of another pid namespace: nothing in /proc would be about it
    if (pid <= 0) refuse('its process is not visible here')
    const pidfd = pidfdOf(fd, pid)
    let isOpen = true
    const isAlive = () => isOpen && !hasEnded(pidfd)
    const dispose = () => {
      if (isOpen) closeSync(pidfd)
      isOpen = false
    }
    if (!isAlive()) {
      dispose()
      refuse(`process ${pid} has ended`)
    }
    return { pid, uid, gid, isAlive, [Symbol.dispose]: dispose }
  }
}

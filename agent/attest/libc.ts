// The one file that calls into libc: what Node has no call for.
import { createRequire } from 'node:module'

export interface Libc {
  getsockopt(fd: number, level: number, name: number, value: Buffer, length: Buffer): number
  syscall(number: number, pid: number, flags: number): number
  poll(descriptors: Buffer, count: number, timeout: number): number
  statx(folder: number, path: string, flags: number, mask: number, into: Buffer): number
  /** of the last call that failed */
  errno(): number
}

export const errnos = { noProcess: 3, interrupted: 4, tooManyFiles: 24, unknownOption: 92 } as const

export function loadLibc(): Libc {
  // CommonJS with a native part: loaded by its own resolver, when the agent starts and not before
  const koffi: typeof import('koffi') = createRequire(import.meta.url)('koffi')
  const lib = koffi.load(null)
  return {
    getsockopt: lib.func('int getsockopt(int, int, int, _Out_ void *, _Inout_ void *)'),
    syscall: lib.func('long syscall(long, long, long)'),
    poll: lib.func('int poll(_Inout_ void *, unsigned long, int)'),
    statx: lib.func('int statx(int, const char *, int, unsigned int, _Out_ void *)'),
    errno: () => koffi.errno(),
  }
}

// What a process has used so far, as Linux tells it (proc(5)).
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

export interface Usage {
  /** microseconds of CPU, user and system; exact to less than one */
  cpu(): number
  /** MiB that it has in memory */
  memory(): number
  /** MiB, the most it had in memory since `forgetPeak` */
  peakMemory(): number
  forgetPeak(): void
  /** bytes that its system calls have read and written, files and sockets */
  bytes(): number
}

/** Threads come and go: one that ended meanwhile is left out. */
function nanosecondsOf(pid: number, thread: string): number {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  } catch {
    return 0
  }
}

function fieldOf(file: string, name: string): number {
  const line = readFileSync(file, 'utf8')
    .split('\n')
    .find((it) => it.startsWith(`${name}:`))
  return Number(/\d+/.exec(line ?? '')?.[0] ?? Number.NaN)
}

export function usageOf(pid: number): Usage {
  const kibibytes = (name: string) => fieldOf(`/proc/${pid}/status`, name)
  const counted = (name: string) => fieldOf(`/proc/${pid}/io`, name)
  return {
    cpu() {
      const threads = readdirSync(`/proc/${pid}/task`)
      return threads.reduce((sum, thread) => sum + nanosecondsOf(pid, thread), 0) / 1000
    },
    memory: () => kibibytes('VmRSS') / 1024,
    peakMemory: () => kibibytes('VmHWM') / 1024,
    forgetPeak: () => writeFileSync(`/proc/${pid}/clear_refs`, '5'),
    bytes: () => counted('rchar') + counted('wchar'),
  }
}

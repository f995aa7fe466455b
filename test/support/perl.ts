// Small programs in Perl, for what Node cannot do to itself: other users, sockets by the thousand.
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'

export const hasPerl = spawnSync('perl', ['-MIO::Socket::UNIX', '-e', '1']).status === 0
if (!hasPerl && process.env.CI === 'true') throw new Error('there is no perl')

export const isRoot = process.getuid?.() === 0
/** other users can be had, and a perl to be them */
export const canBeOthers = hasPerl && isRoot

export interface PerlProgram extends AsyncDisposable {
  readonly pid: number
  /** The next line that it prints; rejects when it has ended. */
  line(): Promise<string>
  say(line: string): void
}

/** What `code` prints is read line by line; it ends at the latest when it is disposed. */
export function startPerl(code: string, args: readonly (string | number)[]): PerlProgram {
  const child: ChildProcessByStdio<Writable, Readable, null> = spawn(
    'perl',
    ['-e', code, ...args.map(String)],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const ended = once(child, 'exit')
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  return {
    pid: child.pid ?? 0,
    async line() {
      const { value, done } = await lines.next()
      if (done === true) throw new Error('the program has ended')
      return value
    },
    say: (line) => void child.stdin.write(`${line}\n`),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

// Ends a program that is not ours when this one ends, however that happens: ours do that by themselves.
import { spawn } from 'node:child_process'
import { once } from 'node:events'

// its standard input ends with us, also when we are killed
const script = 'read _; kill "$1"'

/** Holds the process `pid` until it has ended and this is disposed. */
export function leash(pid: number): AsyncDisposable {
  const holder = spawn('/bin/sh', ['-c', script, 'sh', String(pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  // one that does not start holds nobody, and that is all
  const gone = once(holder, 'close').catch(() => {})
  return {
    async [Symbol.asyncDispose]() {
      // not by its input: the process number may be another's by now
      holder.kill('SIGKILL')
      await gone
    },
  }
}

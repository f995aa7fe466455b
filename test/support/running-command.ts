// A command that runs until it is stopped: its lines as they come, and how it ends.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createTopic } from '../../runtime/lifecycle.ts'

const launcher = join(import.meta.dirname, '../../bin/castellan')

export interface RunningCommand extends AsyncDisposable {
  readonly stdout: readonly string[]
  readonly stderr: readonly string[]
  /** Resolves with the first line, on either stream, for which `isIt` holds. */
  line(isIt: (line: string) => boolean): Promise<string>
  /** Stops it as an operator would; resolves with its exit code. */
  stop(): Promise<number | null>
  readonly ended: Promise<number | null>
}

export function runCastellan(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): RunningCommand {
  const child = spawn(launcher, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr]: [string[], string[]] = [[], []]
  const news = createTopic<string>()
  for (const [stream, lines] of [
    [child.stdout, stdout],
    [child.stderr, stderr],
  ] as const) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line)
      news.publish(line)
    })
  }
  const ended = once(child, 'close').then(([code]) => (typeof code === 'number' ? code : null))
  const stop = () => {
    child.kill('SIGTERM')
    return ended
  }
  return {
    ...{ stdout, stderr, ended, stop },
    async line(isIt) {
      const known = [...stdout, ...stderr].find(isIt)
      if (known !== undefined) return known
      const { promise, resolve } = Promise.withResolvers<string>()
      using _ = news.subscribe((line) => {
        if (isIt(line)) resolve(line)
      })
      return await promise
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

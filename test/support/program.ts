// A long-running command of ours as a process, which is killed and started again: from the file that users start.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const boot = join(import.meta.dirname, '../../cli/boot.mjs')

export interface Program extends AsyncDisposable {
  /** of its log, since the first start */
  readonly lines: readonly string[]
  /** Resolves once it has said `text`; rejects when it ends before. */
  start(text: string): Promise<void>
  /** As `kill -9`; resolves when the process is no more. */
  kill(): Promise<void>
}

const isOver = ({ exitCode, signalCode }: ChildProcess) => exitCode !== null || signalCode !== null

export function programOf(...args: readonly string[]): Program {
  const lines: string[] = []
  let child: ChildProcess | undefined

  async function kill(): Promise<void> {
    if (child === undefined || isOver(child)) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }

  return {
    lines,
    async start(text) {
      if (child !== undefined && !isOver(child)) throw new Error(`${args.join(' ')} runs already`)
      const next = spawn(process.execPath, [boot, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
      child = next
      const said = Promise.withResolvers<void>()
      const mine: string[] = []
      createInterface({ input: next.stderr }).on('line', (line) => {
        lines.push(line)
        mine.push(line)
        if (line.includes(text)) said.resolve()
      })
      next.once('error', said.reject)
      next.once('close', () =>
        said.reject(new Error(`${args.join(' ')} has ended: ${mine.slice(-20).join('\n')}`)),
      )
      await said.promise
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}

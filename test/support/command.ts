// The command line: the real program, and the same in this process, where a start costs nothing.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import type { CliProcess } from '../../cli/context.ts'
import { run } from '../../cli/main.ts'

export interface CommandResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const launcher = join(import.meta.dirname, '../../bin/castellan')

export interface Surroundings {
  readonly cwd: string
  /** beside what this process has */
  readonly env?: Readonly<Record<string, string>>
  /** without it nothing is written there */
  readonly stdin?: string
}

/** `bin/castellan` as people start it. */
export function startCastellan(
  args: readonly string[],
  { cwd, env, stdin }: Surroundings,
): Promise<CommandResult> {
  const { promise, resolve } = Promise.withResolvers<CommandResult>()
  const options = { cwd, env: { ...process.env, ...env } }
  const child = execFile(launcher, args, options, (error, stdout, stderr) => {
    resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
  })
  if (stdin !== undefined) child.stdin?.end(stdin)
  return promise
}

function collect() {
  const chunks: string[] = []
  const stream = new Writable({
    write(chunk, _, done) {
      chunks.push(String(chunk))
      done()
    },
  })
  return { stream, text: () => chunks.join('') }
}

/** One command in this process, with `stdin` on its standard input. */
export async function castellan(
  args: readonly string[],
  stdin: string | Uint8Array = '',
): Promise<CommandResult> {
  const [stdout, stderr] = [collect(), collect()]
  const process: CliProcess = {
    argv: ['node', 'castellan', ...args],
    env: {},
    stdout: stdout.stream,
    stderr: stderr.stream,
    stdin: Readable.from([Buffer.from(stdin)]) as CliProcess['stdin'],
    pid: 1,
    execPath: 'node',
    once: () => undefined,
  }
  const code = await run(process)
  return { code, stdout: stdout.text(), stderr: stderr.text() }
}

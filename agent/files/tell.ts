// Tells those who use a set that there is a new version: a signal to a process, or a command.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Clock } from '../../runtime/clock.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { FileSet } from './config.ts'

type Notify = NonNullable<FileSet['notify']>

export interface TellOptions {
  readonly clock: Clock
  /** ends the command */
  readonly signal: AbortSignal
}

const defaultTimeout = 10_000
/** what is kept of a command's last words */
const longestComplaint = 500

function failed(what: string): never {
  throw new IdentityError('ERR_UNAVAILABLE', what)
}

/** The process that wrote it; never a group of processes, which numbers below 1 stand for. */
function pidIn(file: string): number {
  let text: string
  try {
    text = readFileSync(file, 'latin1')
  } catch (error) {
    return failed(`cannot read ${file} (${errnoOf(error)})`)
  }
  const [, digits] = /^\s*(\d{1,9})\s*$/.exec(text) ?? []
  const pid = Number(digits)
  return pid > 1 ? pid : failed(`${file} holds no number of a process`)
}

function sendSignal(file: string, signal: NonNullable<Notify['signal']>): void {
  const pid = pidIn(file)
  try {
    process.kill(pid, `SIG${signal}`)
  } catch (error) {
    failed(`SIG${signal} to process ${pid} of ${file} failed (${errnoOf(error)})`)
  }
}

/** Its last words, without what looks like a secret. */
function complaintsOf(child: ChildProcess): () => string {
  let text = ''
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    text = `${text}${chunk}`.slice(-longestComplaint)
  })
  return () => {
    const isSafe = !/PRIVATE KEY|eyJ[\w-]{8}/.test(text)
    return text.trim() === '' || !isSafe ? '' : `: ${text.trim()}`
  }
}

/** The child and what it has started: it leads a group of its own. */
function killAll({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // it has ended by itself
  }
}

async function runCommand(
  [program = '', ...args]: readonly string[],
  timeout: number,
  { clock, signal }: TellOptions,
): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  const complaint = complaintsOf(child)
  const over = new AbortController()
  const soon = AbortSignal.any([signal, over.signal])
  const late = clock.sleep(timeout, { signal: soon }).then(
    () => 'late' as const,
    () => 'stopped' as const,
  )
  try {
    const ended = once(child, 'exit').then(([code, by]) => ({ code, by }))
    const result = await Promise.race([ended, late])
    if (result === 'late') failed(`${program} was killed after ${timeout / 1000} s${complaint()}`)
    if (result === 'stopped') failed(`${program} was killed, as the writer stops`)
    const { code, by } = result
    if (code !== 0) failed(`${program} ended with ${code ?? by}${complaint()}`)
  } catch (error) {
    killAll(child)
    if (error instanceof IdentityError) throw error
    failed(`${program} could not be started (${errnoOf(error)})`)
  } finally {
    over.abort()
    // what it has started in the background may hold it open
    child.stderr?.destroy()
  }
}

/** Throws ERR_UNAVAILABLE with what failed. */
export async function tell(
  { pidFile, signal, command, timeout = defaultTimeout }: Notify,
  options: TellOptions,
): Promise<void> {
  if (pidFile !== undefined && signal !== undefined) sendSignal(pidFile, signal)
  if (command !== undefined) await runCommand(command, timeout, options)
}

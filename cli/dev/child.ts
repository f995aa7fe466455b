// Programs that the demonstration starts: each its own process, its log in a file, its readiness taken
// from the log line that says so.
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { IdentityError } from '../../spiffe/errors.ts'
import { leash } from './leash.ts'

/** One log line of a child: its fields. */
export type Event = Readonly<Record<string, unknown>>

export interface Child extends AsyncDisposable {
  readonly pid: number
  /** whether it did not end when it was asked to */
  readonly isStubborn: boolean
}

export interface StartOptions {
  /** the program; a hard link of it has another path and so another identity */
  readonly program: string
  readonly args: readonly string[]
  readonly logFile: string
  /** called for each log line */
  readonly onEvent?: (event: Event) => void
  /** called when it ends though nobody asked it to, with its code or signal */
  readonly onEnd?: (how: string) => void
  readonly signal: AbortSignal
}

export interface ProgramOptions extends StartOptions {
  /** for people */
  readonly name: string
  /** What a line of its log says, `msg: ready` once it is; undefined for what it says outside of it. */
  readonly read: (line: string) => Event | undefined
  /** whether it would outlive this program when that is killed */
  readonly needsLeash: boolean
}

const main = new URL('../boot.mjs', import.meta.url).pathname
const line = z.record(z.string(), z.unknown())
const grace = 8000

function eventOf(text: string): Event | undefined {
  try {
    return line.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

async function exitOf(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  await new Promise((resolve) => child.once('exit', resolve))
}

/** Ends it politely, then not: nothing of ours stays behind. */
async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM')
  const hard = setTimeout(() => child.kill('SIGKILL'), grace)
  await exitOf(child)
  clearTimeout(hard)
}

interface Hearing {
  /** what it says outside of its log is why it ended: the last of it */
  words(): string
}

/** Its standard error: into the file, and to whoever wants to know. */
function hear(
  { stderr }: { readonly stderr: NodeJS.ReadableStream },
  { logFile, read }: ProgramOptions,
  onEvent: (event: Event) => void,
): Hearing {
  const log = createWriteStream(logFile, { flags: 'a', mode: 0o600 })
  let words = ''
  const lines = createInterface({ input: stderr })
  lines.on('line', (text) => {
    log.write(`${text}\n`)
    const event = read(text)
    if (event === undefined) words = `${words}${text}\n`.slice(-2000)
    else onEvent(event)
  })
  lines.once('close', () => log.end())
  return { words: () => words.trim() }
}

/** Starts a program and waits until it is ready. Throws with its last words when it ends instead. */
export async function startProgram(options: ProgramOptions): Promise<Child> {
  const { name, program, args, onEvent = () => {}, onEnd = () => {}, signal } = options
  signal.throwIfAborted()
  const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'] })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const { words } = hear(child, options, (event) => {
    if (event.msg === 'ready') resolve()
    onEvent(event)
  })
  child.once('error', reject)
  const held = options.needsLeash && child.pid !== undefined ? leash(child.pid) : undefined
  let isAsked = false
  const ask = async () => {
    isAsked = true
    await stop(child)
    await held?.[Symbol.asyncDispose]()
  }
  child.once('exit', (code, killer) => {
    void held?.[Symbol.asyncDispose]()
    const how = killer ?? `code ${code}`
    // Ctrl-C in a terminal is for all of them
    if (!isAsked && !signal.aborted) onEnd(how)
    reject(new IdentityError('ERR_UNAVAILABLE', `${name} ended with ${how}: ${words()}`))
  })
  const abort = () => void ask().then(() => reject(signal.reason))
  signal.addEventListener('abort', abort, { once: true })
  try {
    await promise
    return {
      pid: child.pid ?? 0,
      get isStubborn() {
        return child.signalCode === 'SIGKILL'
      },
      [Symbol.asyncDispose]: ask,
    }
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

/** Starts a program of ours, which ends with this one whatever happens. */
export function startChild(options: StartOptions): Promise<Child> {
  const { args } = options
  return startProgram({
    ...options,
    name: args.slice(0, 2).join(' '),
    args: [main, ...args, '--exit-with-stdin'],
    read: eventOf,
    needsLeash: false,
  })
}

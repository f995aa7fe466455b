// Programs that the demonstration starts: each its own process, its log in a file, its readiness taken
// from the log line that says so.
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import { IdentityError } from '../../spiffe/errors.ts'

/** One log line of a child: its fields. */
export type Event = Readonly<Record<string, unknown>>

export interface Child extends AsyncDisposable {
  readonly pid: number
  /** fields of the line that said `ready` */
  readonly ready: Event
  /** whether it did not end when it was asked to */
  readonly isStubborn: boolean
}

export interface ChildOptions {
  /** the program; a hard link of Node has another path and so another identity */
  readonly node: string
  readonly args: readonly string[]
  readonly logFile: string
  /** called for each log line */
  readonly onEvent?: (event: Event) => void
  /** called when it ends though nobody asked it to, with its code or signal */
  readonly onEnd?: (how: string) => void
  readonly signal: AbortSignal
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

/** Starts a program of ours and waits until it is ready. Throws with its last words when it ends instead. */
export async function startChild(options: ChildOptions): Promise<Child> {
  const { node, args, logFile, onEvent = () => {}, onEnd = () => {}, signal } = options
  const log = createWriteStream(logFile, { flags: 'a', mode: 0o600 })
  const child = spawn(node, [main, ...args, '--exit-with-stdin'], {
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  const { promise, resolve, reject } = Promise.withResolvers<Event>()
  // what it says outside of its log is why it ended
  let words = ''
  createInterface({ input: child.stderr }).on('line', (text) => {
    log.write(`${text}\n`)
    const event = eventOf(text)
    if (event === undefined) {
      words = `${words}${text}\n`.slice(-2000)
      return
    }
    if (event.msg === 'ready') resolve(event)
    onEvent(event)
  })
  child.once('error', reject)
  let isAsked = false
  const ask = async () => {
    isAsked = true
    await stop(child)
  }
  child.once('exit', (code, killer) => {
    log.end()
    if (!isAsked) onEnd(killer ?? `code ${code}`)
    reject(
      new IdentityError(
        'ERR_UNAVAILABLE',
        `${args.slice(0, 2).join(' ')} ended with code ${code}: ${words.trim()}`,
      ),
    )
  })
  const abort = () => void ask().then(() => reject(signal.reason))
  signal.addEventListener('abort', abort, { once: true })
  try {
    const ready = await promise
    return {
      pid: child.pid ?? 0,
      ready,
      get isStubborn() {
        return child.signalCode === 'SIGKILL'
      },
      [Symbol.asyncDispose]: ask,
    }
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

// One running ghostunnel: ready when it listens, its log lines to wait for, stopped by its pid.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { createTopic } from '../../runtime/lifecycle.ts'

/** milliseconds for a line, on a machine that is busy */
const patience = 120_000
const kept = 20

export interface RunningGhostunnel extends AsyncDisposable {
  /** where it listens on loopback */
  readonly port: number
  /** Resolves with the next line that holds `text`, without pid and time. */
  line(text: string): Promise<string>
}

export async function startGhostunnel(
  program: string,
  port: number,
  args: readonly string[],
): Promise<RunningGhostunnel> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const gone = once(child, 'close')
  const lines: string[] = []
  const news = createTopic<string>()
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', (line) => {
      if (lines.push(line) > kept) lines.shift()
      news.publish(line)
    })

  async function line(text: string): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    using _ = news.subscribe((it) => {
      if (it.includes(text)) resolve(it.replace(/^(?:\[\d+\] )?[\d/]+ [\d:.]+ /, ''))
    })
    const inVain = (why: string) => () =>
      reject(new Error(`ghostunnel ${why} without "${text}":\n${lines.join('\n')}`))
    gone.then(inVain('ended'), reject)
    AbortSignal.timeout(patience).addEventListener('abort', inVain('was waited for'))
    return await promise
  }

  async function stop() {
    // otherwise it waits for its connections to end
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await gone
  }

  try {
    await line('listening for connections on')
  } catch (error) {
    await stop()
    throw error
  }
  return { port, line, [Symbol.asyncDispose]: stop }
}

// A real Envoy, run by its pid.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { drainArguments } from '../../agent/proxies/envoy/drain.ts'
import { type Envoy, findEnvoy as find } from '../../cli/dev/find-envoy.ts'

/** milliseconds for a start, on a machine that is busy */
const patience = 120_000

/** From ENVOY, the PATH, or the cache; a machine without any and without pip has none. */
export const findEnvoy = (tell: (line: string) => void): Promise<Envoy> =>
  find({ env: process.env, tell })

export interface RunningEnvoy extends AsyncDisposable {
  readonly pid: number
}

/** Starts Envoy as this process's user; resolves once it starts its workers, which listen a moment later. */
export async function startEnvoy(
  path: string,
  { name, folder, bootstrap }: { name: string; folder: string; bootstrap: object },
): Promise<RunningEnvoy> {
  const config = join(folder, `${name}.json`)
  writeFileSync(config, JSON.stringify(bootstrap))
  const args = ['-c', config, '--disable-hot-restart', '--concurrency', '1', '-l', 'info']
  // a field that it does not know is an error of ours
  args.push('--reject-unknown-dynamic-fields', ...drainArguments)
  // for who looks for a fault: what Envoy says of one of its components
  const debugged = process.env.TEST_ENVOY_DEBUG
  if (debugged !== undefined) args.push('--component-log-level', `${debugged}:debug`)
  const child = spawn(path, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const gone = once(child, 'exit')
  const ready = Promise.withResolvers<void>()
  const kept: string[] = []
  const lines = createInterface({ input: child.stderr })
  lines.on('line', (line) => {
    if (kept.push(line) > 20) kept.shift()
    if (debugged !== undefined) console.error(line)
    if (line.includes('starting workers')) ready.resolve()
  })
  child.once('error', ready.reject)
  const late = AbortSignal.timeout(patience)
  late.addEventListener('abort', () =>
    ready.reject(new Error(`Envoy is not ready after ${patience} ms:\n${kept.join('\n')}`)),
  )
  lines.once('close', () => ready.reject(new Error(`Envoy ended:\n${kept.join('\n')}`)))
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    await gone
  }
  try {
    await ready.promise
  } catch (error) {
    await stop()
    throw error
  }
  return { pid: child.pid ?? 0, [Symbol.asyncDispose]: stop }
}

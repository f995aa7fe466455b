// The library as other programs have it: built, packed, and installed into a folder of its own.
import { execFile, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { buildLibrary } from '../../build/library.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

export interface Consumer extends Disposable {
  readonly folder: string
}

/** A project that has installed `castellan`, and beside it, from this checkout, what `beside` names. */
export async function installLibrary(beside: readonly string[]): Promise<Consumer> {
  const home = mkdtempSync(join(tmpdir(), 'castellan-package-'))
  using undo = new DisposableStack()
  undo.defer(() => rmSync(home, { recursive: true, force: true }))
  const library = join(home, 'library')
  await buildLibrary(library)
  const env = {
    ...process.env,
    npm_config_cache: join(home, 'cache'),
    npm_config_update_notifier: 'false',
  }
  await run('npm', ['pack', '--silent', '--pack-destination', home], { cwd: library, env })
  const folder = join(home, 'project')
  mkdirSync(folder)
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n')
  const install = ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund']
  await run('npm', [...install, join(home, 'castellan-0.1.0.tgz')], { cwd: folder, env })
  for (const name of beside) {
    const link = join(folder, 'node_modules', name)
    mkdirSync(join(link, '..'), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), link)
  }
  const all = undo.move()
  return { folder, [Symbol.dispose]: () => all.dispose() }
}

export interface Started extends AsyncDisposable {
  /** Resolves once it has printed `text`; rejects when it ends without. */
  says(text: string): Promise<void>
  /** Resolves with all that it has printed once it has ended by itself; rejects when it failed. */
  readonly output: Promise<string>
}

/** Runs `text` as a program of the project, with the Workload API at `endpoint`. */
export function startProgram({ folder }: Consumer, text: string, endpoint: string): Started {
  const env = { ...process.env, SPIFFE_ENDPOINT_SOCKET: endpoint }
  const input = ['--input-type=module', '--eval', text]
  const child = spawn(process.execPath, input, { cwd: folder, env })
  let said = ''
  let heard = Promise.withResolvers<void>()
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (part: string) => {
      said += part
      heard.resolve()
    })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  void ended.then(() => heard.resolve())
  const output = ended.then((code) => {
    if (code !== 0) throw new Error(`it ended with ${code}: ${said}`)
    return said
  })
  output.catch(() => {})
  return {
    output,
    async says(wanted) {
      while (!said.includes(wanted)) {
        if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${said}`)
        await heard.promise
        heard = Promise.withResolvers()
      }
    },
    async [Symbol.asyncDispose]() {
      child.kill()
      await ended
    },
  }
}

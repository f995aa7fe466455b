// Generates proto/gen from the .proto texts beside this file. Idempotent and safe to run from two
// processes at once: the output is written aside and renamed, and a stamp says which texts it is of.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  globSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

const here = import.meta.dirname
const root = join(here, '..')
const gen = join(here, 'gen')

function fingerprint(): string {
  const hash = createHash('sha256').update(readFileSync(import.meta.filename))
  for (const file of globSync('**/*.proto', { cwd: here }).sort()) {
    hash
      .update(file)
      .update('\0')
      .update(readFileSync(join(here, file)))
  }
  return hash.digest('hex')
}

function isFresh(stamp: string): boolean {
  const file = join(gen, 'stamp')
  return existsSync(file) && readFileSync(file, 'utf8') === stamp
}

function template(out: string): string {
  const plugin = join(root, 'node_modules/.bin/protoc-gen-es')
  const opt = ['target=js+dts', 'import_extension=js']
  const plugins = [{ local: [process.execPath, plugin], out, opt }]
  return JSON.stringify({ version: 'v2', inputs: [{ directory: here }], plugins })
}

function generate(stamp: string): void {
  const aside = mkdtempSync(join(here, '.gen-'))
  const done = spawnSync(
    process.execPath,
    [join(root, 'node_modules/.bin/buf'), 'generate', '--template', template(aside)],
    { cwd: here, encoding: 'utf8' },
  )
  if (done.status !== 0) {
    rmSync(aside, { recursive: true, force: true })
    throw new Error(`generating proto/gen failed: ${done.stderr || done.error?.message}`)
  }
  writeFileSync(join(aside, 'stamp'), stamp)
  const old = `${aside}.old`
  if (existsSync(gen)) renameSync(gen, old)
  try {
    renameSync(aside, gen)
  } catch (error) {
    // another process was faster; its output is of the same texts or the next run notices
    rmSync(aside, { recursive: true, force: true })
    if (!existsSync(gen)) throw error
  }
  rmSync(old, { recursive: true, force: true })
}

const stamp = fingerprint()
// the stamp's age is what bin/castellan looks at
if (isFresh(stamp)) utimesSync(join(gen, 'stamp'), new Date(), new Date())
else generate(stamp)

// The folder of policy files: what stands there is applied; a broken edit changes nothing and is named.
import { readdirSync, readFileSync, statSync, watch } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../runtime/clock.ts'
import { errnoOf } from '../runtime/errno.ts'
import { createLatest, type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { Authority } from './authority.ts'
import { applyPolicies } from './policy-sets.ts'
import type { StoredPolicies } from './store/model.ts'

const largestFile = 1024 * 1024
/** Stands in for the text of a larger file: the reader refuses it for its length, with its name. */
const tooLong = ' '.repeat(largestFile + 1)
const settle = 50
const look = 2000

/** All `*.yaml` and `*.yml` directly in the folder, by name. */
function readFolder(folder: string): StoredPolicies['files'] {
  return readdirSync(folder)
    .filter((name) => /\.ya?ml$/.test(name))
    .sort()
    .map((name) => {
      const path = join(folder, name)
      const text = statSync(path).size > largestFile ? tooLong : readFileSync(path, 'utf8')
      return { name: path, text }
    })
}

/** What two readings agree on: most editors empty a file before they write it. */
async function readSettled(folder: string, clock: Clock, signal: AbortSignal) {
  let files = readFolder(folder)
  for (;;) {
    await clock.sleep(settle, { signal })
    const again = readFolder(folder)
    if (JSON.stringify(again) === JSON.stringify(files)) return files
    files = again
  }
}

/** An empty file is a save that went wrong: it must not look like a folder without policies. */
function demandContent(files: StoredPolicies['files']): void {
  const fields = files
    .filter(({ text }) => text !== tooLong && text.trim() === '')
    .map(({ name }) => ({
      field: `${name}:1`,
      problem: 'is empty; delete the file if that is meant',
    }))
  if (fields.length > 0) throw new IdentityError('ERR_POLICY', 'an empty policy file', { fields })
}

/** A folder that is misspelt must not look like one without policies. */
function demandFolder(folder: string): void {
  try {
    readdirSync(folder)
  } catch (cause) {
    throw new IdentityError(
      'ERR_CONFIG',
      `the policy folder ${folder} cannot be read (${errnoOf(cause)})`,
      { cause },
    )
  }
}

/**
 * Applies the folder now and after each change of it; what an operator puts into force in between stays until
 * then. File events wake it at once; a look every two
 * seconds finds what they missed (an editor that replaces the folder's files, a network file system).
 */
export function followPolicies(
  folder: string,
  authority: Authority,
  { log, clock }: { log: Log; clock: Clock },
): Running {
  // applied or refused: only a change of it is looked at again
  let seen = ''
  demandFolder(folder)

  async function apply(signal: AbortSignal): Promise<void> {
    const files = await readSettled(folder, clock, signal)
    const text = JSON.stringify(files)
    if (text === seen) return
    try {
      const before = authority.registry.policies().version
      demandContent(files)
      const { version } = await applyPolicies(authority, files, { caller: 'folder', message: '' })
      seen = text
      if (version !== before) log.info({ version, files: files.length }, 'policies applied')
    } catch (error) {
      if (!hasCode(error, 'ERR_POLICY', 'ERR_BAD_REQUEST')) throw error
      seen = text
      const version = authority.registry.policies().version
      log.error({ problems: error.fields, version }, 'policies refused; the version in force stays')
    }
  }

  return run(async (signal) => {
    using wake = createLatest<true>(signal)
    using _ = watchFolder(folder, () => wake.push(true))
    const ticking = run(async (stop) => {
      while (!stop.aborted) {
        await clock.sleep(look, { signal: stop })
        wake.push(true)
      }
    })
    await using __ = ticking
    wake.push(true)
    for await (const ___ of wake) {
      await apply(signal).catch((error: unknown) => {
        if (signal.aborted) throw error
        log.error({ err: error }, 'the policy folder cannot be read')
      })
    }
  })
}

function watchFolder(folder: string, changed: () => void): Disposable {
  const watcher = watch(folder, changed)
  watcher.on('error', changed)
  return { [Symbol.dispose]: () => watcher.close() }
}

// Stock SPIRE programs, built from the module in `spire/` into a cache; minutes the first time.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { goEnvironment, lastLine } from './go.ts'
import type { Surroundings } from './interop.ts'

const run = promisify(execFile)
const module = join(import.meta.dirname, 'spire')
const cache = join(module, '../../../.cache/spire')
const version = 'v1.15.3'

export type Stock =
  | { readonly kind: 'built'; readonly agent: string; readonly server: string }
  | { readonly kind: 'skipped'; readonly reason: string }

/** A machine without Go, a C compiler or the modules skips. */
export async function buildStock({ log }: Surroundings): Promise<Stock> {
  const folder = join(cache, version)
  const [agent, server] = [join(folder, 'spire-agent'), join(folder, 'spire-server')]
  if (existsSync(agent) && existsSync(server)) return { kind: 'built', agent, server }
  try {
    const env = await goEnvironment()
    log(`building stock spire-agent and spire-server ${version}: about ten minutes, once`)
    // no `go mod download`: that asks for modules that are not built, and not all of them can be had
    const packages = ['agent', 'server'].map((it) => `github.com/spiffe/spire/cmd/spire-${it}`)
    const flags = ['-trimpath', '-ldflags', '-s -w']
    await run('go', ['build', ...flags, '-o', `${folder}/`, ...packages], {
      cwd: module,
      env: { ...env, CGO_ENABLED: '1' },
    })
    return { kind: 'built', agent, server }
  } catch (error) {
    return { kind: 'skipped', reason: `stock SPIRE cannot be built: ${lastLine(error)}` }
  }
}

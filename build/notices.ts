// The licences of what was bundled: they ask to go along with every copy.
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Metafile } from 'esbuild'
import { root } from './root.ts'

/** `node_modules/a`, `node_modules/@b/c`, also below another package. */
const packageFolder = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/

/** The texts of all packages that `metafile` names, each below the name of its package. */
export function noticesOf({ inputs }: Metafile): string {
  const folders = Object.keys(inputs).flatMap((path) => packageFolder.exec(path)?.[0] ?? [])
  const notices = [...new Set(folders)].sort().map((folder) => {
    const cwd = join(root, folder)
    const files = globSync('{LICEN[CS]E,NOTICE,license}*', { cwd }).sort()
    const texts = files.map((file) => readFileSync(join(cwd, file), 'utf8').trim())
    const stated = `${readFileSync(join(cwd, 'package.json'), 'utf8').match(/"license": *"[^"]*"/)}`
    const name = folder.replace(/^.*node_modules\//, '')
    return `## ${name}\n\n${texts.length === 0 ? stated : texts.join('\n\n')}\n`
  })
  return notices.join('\n')
}

// Declarations for programs that use the library: those that its two entries lead to, and no others.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { root } from './root.ts'

const specifier = /(?<=(?:from |import\()['"])(\.{1,2}\/[^'"]+)\.ts(?=['"])/g

/** Paths below `folder` of `entry` and of all that it imports. */
function reached(folder: string, entry: string, found = new Set<string>()): Set<string> {
  if (found.has(entry)) return found
  found.add(entry)
  for (const [target] of readFileSync(join(folder, entry), 'utf8').matchAll(specifier)) {
    const path = relative(folder, join(folder, dirname(entry), target))
    reached(folder, path.replace(/\.ts$/, '.d.ts'), found)
  }
  return found
}

/** Writes the declarations of `entries` (such as `client/library.ts`) below `folder`. */
export function writeDeclarations(folder: string, entries: readonly string[]): void {
  const all = mkdtempSync(join(tmpdir(), 'castellan-declarations-'))
  try {
    const tsc = join(root, 'node_modules/.bin/tsc')
    execFileSync(tsc, ['-p', 'build/declarations.json', '--outDir', all], { cwd: root })
    const found = new Set<string>()
    for (const entry of entries) reached(all, entry.replace(/\.ts$/, '.d.ts'), found)
    for (const path of found) {
      mkdirSync(dirname(join(folder, path)), { recursive: true })
      const text = readFileSync(join(all, path), 'utf8')
      writeFileSync(join(folder, path), text.replace(specifier, '$1.js'))
    }
  } finally {
    rmSync(all, { recursive: true })
  }
}

// The layout of design.md §10 as a test: who may import whom, how large files are, where secrets of TLS
// may be handled.
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '..')
const folders = [
  'agent',
  'bench',
  'ca',
  'certs-dev',
  'cli',
  'client',
  'decisions',
  'documents',
  'policies',
  'proto',
  'proxy',
  'proxy-spec',
  'runtime',
  'spiffe',
  'test',
]
const product = [
  'agent',
  'ca',
  'certs-dev',
  'cli',
  'client',
  'decisions',
  'documents',
  'policies',
  'proxy',
  'proxy-spec',
  'runtime',
  'spiffe',
]

/** Folder → what it may import, beside itself. A file name allows that file alone. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  spiffe: [],
  documents: ['spiffe/errors.ts'],
  policies: ['spiffe', 'documents'],
  runtime: ['spiffe', 'proto', 'documents'],
  client: [
    'spiffe',
    'proto',
    'policies',
    'runtime/clock.ts',
    'runtime/lifecycle.ts',
    'runtime/backoff.ts',
  ],
  'proxy-spec': ['spiffe', 'documents', 'policies', 'runtime/config.ts'],
  decisions: ['spiffe', 'proto', 'policies', 'runtime', 'client', 'proxy-spec'],
  proxy: [
    'spiffe',
    'proto',
    'documents',
    'policies',
    'runtime',
    'client',
    'decisions',
    'proxy-spec',
  ],
  ca: ['spiffe', 'proto', 'documents', 'policies', 'runtime', 'client'],
  agent: [
    'spiffe',
    'proto',
    'documents',
    'policies',
    'runtime',
    'client',
    'decisions',
    'proxy-spec',
  ],
  'certs-dev': ['ca', 'spiffe', 'runtime', 'documents'],
  cli: [
    'agent',
    'ca',
    'certs-dev',
    'client',
    'decisions',
    'documents',
    'policies',
    'proto',
    'proxy',
    'proxy-spec',
    'runtime',
    'spiffe',
  ],
}

const sources = folders
  .flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: root }))
  .filter(
    (file) =>
      !file.startsWith('proto/gen/') &&
      !file.startsWith('certs-dev/out/') &&
      !file.endsWith('.d.ts'),
  )
const text = (file: string) => readFileSync(join(root, file), 'utf8')

/** Paths, relative to the root, of our own files that `file` imports. */
function importsOf(file: string): string[] {
  return [...text(file).matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(([, path = '']) =>
    relative(root, join(root, dirname(file), path)),
  )
}

const folderOf = (file: string) => file.split('/')[0] ?? ''

describe('architecture', () => {
  it('imports go only where the layout allows', () => {
    const wrong = sources
      .filter((file) => product.includes(folderOf(file)))
      .flatMap((file) => importsOf(file).map((target) => ({ file, target })))
      .filter(({ file, target }) => {
        const from = folderOf(file)
        const to = folderOf(target)
        return to !== from && !(allowed[from] ?? []).some((it) => it === to || it === target)
      })
    expect(wrong).toEqual([])
  })

  it('no file is longer than 300 lines, tests excepted', () => {
    const long = sources
      .filter((file) => !file.startsWith('test/'))
      .map((file) => ({ file, lines: text(file).split('\n').length - 1 }))
      .filter(({ lines }) => lines > 300)
    expect(long).toEqual([])
  })

  it('certificate checks are switched off in two files only', () => {
    const off = sources.filter(
      (file) =>
        !file.startsWith('test/') &&
        !file.startsWith('bench/') &&
        /rejectUnauthorized: false/.test(
          text(file).replace(/\/\/.*|`rejectUnauthorized[^`]*`/g, ''),
        ),
    )
    expect(off.sort()).toEqual(['proxy/tls.ts', 'runtime/tls-server.ts'])
  })

  it('one file imports @peculiar/x509', () => {
    const users = sources.filter(
      (file) => product.includes(folderOf(file)) && text(file).includes("from '@peculiar/x509'"),
    )
    expect(users).toEqual(['ca/x509.ts'])
  })

  it('no default export, no barrel, no file of an empty name', () => {
    const barrels = sources.filter((file) =>
      /\/(index|utils?|helpers?|common|types)\.ts$/.test(file),
    )
    const defaults = sources.filter((file) => /^export default/m.test(text(file)))
    expect([...barrels, ...defaults]).toEqual([])
  })

  it('no cast but a brand’s own, no any, no suppressed check', () => {
    const brands = ['SpiffeId', 'TrustDomain', 'Serial', 'Minted']
    const findings = sources
      .filter((file) => product.includes(folderOf(file)))
      .flatMap((file) => codeLines(file))
      .filter(({ line }) => {
        const cast = /[\w)\]}] as ([A-Za-z]\w*)/.exec(line)?.[1]
        const isCast = cast !== undefined && cast !== 'const' && !brands.includes(cast)
        return isCast || /: any\b|@ts-|biome-ignore/.test(line)
      })
    expect(findings).toEqual([])
  })
})

/** Lines of code with texts, comments and imports taken out. */
function codeLines(file: string): { at: string; line: string }[] {
  const code = text(file)
    .replace(/^import [^;]*? from '[^']*'$/gm, (whole) => whole.replace(/[^\n]/g, ''))
    .replace(/\/\*\*[\s\S]*?\*\//g, (whole) => whole.replace(/[^\n]/g, ''))
    .replace(/'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g, "''")
    .replace(/\/\/.*$/gm, '')
  return code.split('\n').map((line, i) => ({ at: `${file}:${i + 1}`, line: line.trim() }))
}

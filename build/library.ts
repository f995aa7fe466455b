// The package that other programs install: JavaScript, declarations and nothing to install beside it.
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'
import { z } from 'zod'
import { writeDeclarations } from './declarations.ts'
import { noticesOf } from './notices.ts'
import { root } from './root.ts'

const manifestShape = z.object({
  name: z.string(),
  version: z.string(),
  license: z.string(),
  dependencies: z.record(z.string(), z.string()),
})

/** Subpath of the package → the file that makes it. */
const entries = { library: 'client/library.ts', fastify: 'client/fastify.ts' } as const

const exportOf = (name: keyof typeof entries) => ({
  types: `./types/${entries[name].replace(/\.ts$/, '.d.ts')}`,
  default: `./${name}.js`,
})

function manifest(): string {
  const text = readFileSync(join(root, 'package.json'), 'utf8')
  const { name, version, license, dependencies } = manifestShape.parse(JSON.parse(text))
  const content = {
    name,
    version,
    description:
      'SPIFFE identities for Node programs: mutual TLS that rotates by itself, JWT-SVIDs',
    type: 'module',
    license,
    // from 24.21.0 on a TLS server does not see the intermediates of its clients (nodejs/node 65579)
    engines: { node: '>=24.0.0 <24.21.0' },
    exports: { '.': exportOf('library'), './fastify': exportOf('fastify') },
    sideEffects: false,
    peerDependencies: { fastify: `^${dependencies.fastify}` },
    peerDependenciesMeta: { fastify: { optional: true } },
  }
  return `${JSON.stringify(content, undefined, 2)}\n`
}

/** Writes the package into `folder`. */
export async function buildLibrary(folder: string): Promise<void> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: entries,
    outdir: folder,
    bundle: true,
    // what both entries have in common exists once: who a connection's peer is, for instance
    splitting: true,
    chunkNames: 'shared-[hash]',
    platform: 'node',
    target: 'node24',
    format: 'esm',
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
  })
  writeDeclarations(join(folder, 'types'), Object.values(entries))
  writeFileSync(join(folder, 'package.json'), manifest())
  writeFileSync(join(folder, 'LICENSES.txt'), noticesOf(metafile))
  copyFileSync(join(root, 'LICENSE'), join(folder, 'LICENSE'))
  copyFileSync(join(root, 'docs/library.md'), join(folder, 'README.md'))
}

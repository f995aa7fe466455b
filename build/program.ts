// The whole program as JavaScript: castellan.js, which turns the compile cache on, and the two that it starts,
// the node agent and all other commands, each in a folder of its own and in parts that are loaded when they are
// wanted: workloads wait for an agent that starts, and it loads what it serves them with, first.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'
import { withBuiltinsAtHand } from './builtins.ts'
import { noticesOf } from './notices.ts'
import { root } from './root.ts'

const boot = 'castellan.js'
/** Folder → the source that it is made of. */
const programs = { commands: 'cli/main.ts', 'node-agent': 'cli/node-agent.ts' } as const

function replaced(text: string, before: string, after: string): string {
  if (!text.includes(before)) throw new Error(`${before} is not there any more to be replaced`)
  return text.replace(before, after)
}

// `castellan dev` starts the program again, by the file that started it
const bootOfChildren: Plugin = {
  name: 'boot of children',
  setup({ onLoad }) {
    onLoad({ filter: /\/cli\/dev\/child\.ts$/ }, ({ path }) => ({
      contents: replaced(readFileSync(path, 'utf8'), "'../boot.mjs'", `'../${boot}'`),
      loader: 'ts',
    }))
  },
}

// packages that are CommonJS call it
const requireHere =
  'const require = process.getBuiltinModule("node:module").createRequire(import.meta.url);\n'

async function buildParts(folder: string, source: string): Promise<Metafile> {
  const { metafile, outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [source],
    outdir: folder,
    bundle: true,
    splitting: true,
    chunkNames: '[name]-[hash]',
    // no package.json has to be found that says what they are
    outExtension: { '.js': '.mjs' },
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // native; and pg asks for two that it does without
    external: ['koffi', 'pg-native', 'pg-cloudflare'],
    plugins: [bootOfChildren],
    legalComments: 'none',
    metafile: true,
    write: false,
    logLevel: 'warning',
  })
  for (const { path, text } of outputFiles) {
    mkdirSync(dirname(path), { recursive: true })
    const needsRequire = /\brequire\b/.test(text)
    writeFileSync(path, (needsRequire ? requireHere : '') + withBuiltinsAtHand(text))
  }
  return metafile
}

/** Writes into `folder`. koffi has a native part and is loaded from node_modules when it is needed. */
export async function buildProgram(folder: string): Promise<void> {
  let source = readFileSync(join(root, 'cli/boot.mjs'), 'utf8')
  source = replaced(source, '/../.cache/compiled', '/compiled')
  const inputs: Metafile['inputs'] = {}
  for (const [name, entry] of Object.entries(programs)) {
    Object.assign(inputs, (await buildParts(join(folder, name), entry)).inputs)
    const built = entry.replace(/^cli\/(.*)\.ts$/, `./${name}/$1.mjs`)
    source = replaced(source, entry.replace('cli/', './'), built)
  }
  writeFileSync(join(folder, 'castellan.licenses.txt'), noticesOf({ inputs, outputs: {} }))
  writeFileSync(join(folder, boot), source)
}

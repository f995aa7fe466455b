// The whole program as JavaScript: castellan.js, which turns the compile cache on, and what it starts.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { noticesOf } from './notices.ts'
import { root } from './root.ts'

const boot = 'castellan.js'
const program = 'castellan-program.js'

function replaced(text: string, before: string, after: string): string {
  if (!text.includes(before)) throw new Error(`${before} is not there any more to be replaced`)
  return text.replace(before, after)
}

// `castellan dev` starts the program again, by the file that started it
const bootOfChildren: Plugin = {
  name: 'boot of children',
  setup({ onLoad }) {
    onLoad({ filter: /\/cli\/dev\/child\.ts$/ }, ({ path }) => ({
      contents: replaced(readFileSync(path, 'utf8'), "'../boot.mjs'", `'./${boot}'`),
      loader: 'ts',
    }))
  },
}

/** Writes into `folder`. koffi has a native part and is loaded from node_modules when it is needed. */
export async function buildProgram(folder: string): Promise<void> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['cli/program.ts'],
    outfile: join(folder, program),
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // pg asks for both and does without
    external: ['koffi', 'pg-native', 'pg-cloudflare'],
    plugins: [bootOfChildren],
    // packages that are CommonJS call it
    banner: {
      js: "import { createRequire as createRequireHere } from 'node:module'\nconst require = createRequireHere(import.meta.url)",
    },
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
  })
  writeFileSync(join(folder, 'castellan-program.licenses.txt'), noticesOf(metafile))
  const source = readFileSync(join(root, 'cli/boot.mjs'), 'utf8')
  writeFileSync(join(folder, boot), replaced(source, './program.ts', `./${program}`))
}

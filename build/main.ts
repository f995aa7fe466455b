// `npm run build`: dist/castellan.js, the program, and dist/library, the package for other programs.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { buildLibrary } from './library.ts'
import { buildProgram } from './program.ts'
import { root } from './root.ts'

const dist = join(root, 'dist')
rmSync(dist, { recursive: true, force: true })
await buildProgram(dist)
await buildLibrary(join(dist, 'library'))

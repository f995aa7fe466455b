// The program as it is shipped: built, with the script that starts it. In the checkout, for what is native is
// taken from its node_modules.
import { copyFileSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { buildProgram } from '../../build/program.ts'

const root = join(import.meta.dirname, '../..')
const folder = join(root, '.cache/bench/shipped')

/** Builds it; the path of `bin/castellan`. */
export async function buildShipped(): Promise<string> {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, 'bin'), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  await buildProgram(join(folder, 'dist'))
  const program = join(folder, 'bin/castellan')
  copyFileSync(join(root, 'bin/castellan'), program)
  return program
}

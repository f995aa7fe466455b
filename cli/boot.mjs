// Where every process starts. Plain JavaScript on purpose: with the compile cache turned on first, not even
// the type stripper has to be loaded, which is half of the time that a start takes.
import { enableCompileCache } from 'node:module'

enableCompileCache()
const { runProgram } = await import('./program.ts')
process.exitCode = await runProgram(process)

// Where every process starts. The compile cache is turned on before anything else is loaded.
import { enableCompileCache } from 'node:module'

enableCompileCache()
const { runProgram } = await import('./program.ts')
process.exitCode = await runProgram(process)

// Where every process starts. Plain JavaScript on purpose: with the compile cache turned on first, not even
// the type stripper has to be loaded, which is half of the time that a start takes.
import { statSync } from 'node:fs'
import { enableCompileCache, flushCompileCache } from 'node:module'
import { userInfo } from 'node:os'

// What was compiled is believed, so it lies where nobody else may write: not in the temporary folder, which is
// Node's own choice, but beside a program that is ours, or in the home that the system knows us by.
function cacheFolder() {
  const here = import.meta.dirname
  if (statSync(here).uid === process.getuid?.()) return `${here}/../.cache/compiled`
  return `${userInfo().homedir}/.cache/castellan`
}

try {
  enableCompileCache(cacheFolder())
  // a process that is killed leaves it behind too
  setTimeout(flushCompileCache, 10_000).unref()
} catch {
  // a user without a home starts without it
}
const [, , noun, verb] = process.argv
const { run } = await (noun === 'agent' && verb === 'run'
  ? import('./node-agent.ts')
  : import('./main.ts'))
process.exitCode = await run(process)

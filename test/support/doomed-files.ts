// `node doomed-files.ts FOLDER CONTENT [N]`: makes the set of that content current, and is killed before its
// Nth step. It prints the steps that were done, and `done` at the end.
import { writeSync } from 'node:fs'
import { publish, type WantedFile } from '../../agent/files/versions.ts'
import { explain } from '../../spiffe/errors.ts'

/** Three files that belong together; `size` bytes each. */
export function setOf(content: string, size = 0): WantedFile[] {
  const bytes = (name: string) => Buffer.from(`${name} of ${content}\n`.padEnd(size))
  return ['cert.pem', 'key.pem', 'both.pem'].map((name) => ({
    ...{ name, mode: 0o600 },
    content: () => bytes(name),
    isAsGood: (existing) => existing.equals(bytes(name)),
  }))
}

const [folder, content = '', last = 'never', size = '0'] = process.argv.slice(2)
if (import.meta.main && folder !== undefined) {
  const place = { folder, owner: { uid: undefined, gid: undefined } }
  let steps = 0
  try {
    await publish(place, setOf(content, Number(size)), {
      between(step) {
        steps++
        if (String(steps) === last) process.kill(process.pid, 'SIGKILL')
        // not by a stream: what was printed has to be out when the process dies
        writeSync(1, `${step}\n`)
      },
    })
    writeSync(1, 'done\n')
  } catch (error) {
    writeSync(1, `${explain(error)}\n`)
  }
}

// A folder of its own for whoever needs one for a while.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TestFolder extends Disposable {
  readonly path: string
}

/** Gone with everything in it once it is disposed. */
export function testFolder(place = tmpdir()): TestFolder {
  const path = mkdtempSync(join(place, 'castellan-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

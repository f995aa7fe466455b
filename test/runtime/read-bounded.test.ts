import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readBounded } from '../../runtime/read-bounded.ts'
import { explain } from '../../spiffe/errors.ts'
import { testFolder } from '../support/folder.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const at = (name: string) => join(folder.path, name)

describe('a file of somebody else', () => {
  it('is read to its end, up to the limit, through links too', async () => {
    writeFileSync(at('four'), 'four')
    writeFileSync(at('empty'), '')
    symlinkSync(at('four'), at('link'))
    expect(String(await readBounded(at('four'), 4))).toBe('four')
    expect(String(await readBounded(at('link'), 9))).toBe('four')
    expect(String(await readBounded(at('empty'), 4))).toBe('')
  })

  it('that is not there, no file or too long is refused by its name, without its content', async () => {
    mkdirSync(at('folder'))
    execFileSync('mkfifo', [at('pipe')])
    writeFileSync(at('five'), 'fives')
    symlinkSync(at('round'), at('round'))
    const reasons = {
      none: 'ENOENT',
      folder: 'not a regular file',
      // nobody writes, and nobody waits
      pipe: 'not a regular file',
      five: 'over 4 bytes',
      round: 'ELOOP',
    }
    for (const [name, why] of Object.entries(reasons)) {
      const told = readBounded(at(name), 4).catch(explain)
      expect(await told).toBe(`cannot read ${at(name)} (${why})`)
    }
  })
})

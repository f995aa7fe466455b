// castellan dev --check: the tour, as a person would start it.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const launcher = join(import.meta.dirname, '../../bin/castellan')

it('every step of the tour holds, and nothing is left behind', async () => {
  const { promise, resolve } = Promise.withResolvers<{ code: number; output: string }>()
  execFile(launcher, ['dev', '--check'], (error, stdout, stderr) => {
    resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
  })
  const { code, output } = await promise
  expect(output).toMatch(/^dev --check: (\d+) of \1 steps held$/m)
  expect(output).not.toContain('FAIL')
  expect(code).toBe(0)
}, 180_000)

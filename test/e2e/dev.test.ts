// castellan dev --check: the tour, as a person would start it.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { findEnvoy } from '../support/envoy.ts'

const launcher = join(import.meta.dirname, '../../bin/castellan')
const patience = 180_000

async function demandTour(...how: readonly string[]): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<{ code: number; output: string }>()
  execFile(launcher, ['dev', ...how, '--check'], (error, stdout, stderr) => {
    resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
  })
  const { code, output } = await promise
  expect(output).toMatch(/^dev --check: (\d+) of \1 steps held$/m)
  expect(output).not.toContain('FAIL')
  expect(code).toBe(0)
}

it('every step of the tour holds, and nothing is left behind', () => demandTour(), patience)

it(
  'so it is with Envoys that the agent drives',
  async ({ skip }) => {
    const envoy = await findEnvoy(console.error)
    if (envoy.kind === 'missing') {
      if (process.env.CI === 'true') throw new Error(envoy.reason)
      console.error(`skipped: ${envoy.reason}`)
      return skip(envoy.reason)
    }
    await demandTour('--proxy', 'envoy')
  },
  2 * patience,
)

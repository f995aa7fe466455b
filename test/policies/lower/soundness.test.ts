// Lowered policies against the engine, by random policies and requests.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  compareHttp,
  compareTcp,
  isCaller,
  newTally,
  scenario,
  setOf,
} from '../../support/lowered-differential.ts'

const options = { timeout: 600_000 }

describe('lowered policies', () => {
  it(
    'deny what the engine denies, allow only what it allows, and where nothing differs they are equal',
    options,
    () => {
      const tally = newTally()
      fc.assert(
        fc.property(scenario, ({ knowsPort, asked, ...documents }) => {
          const set = setOf(documents)
          for (const one of asked) {
            if (one.http !== undefined && isCaller(one)) compareHttp({ set, knowsPort }, one, tally)
          }
        }),
        { numRuns: 60 },
      )
      console.info(`lowered: ${JSON.stringify(tally)}`)
      expect(Math.min(tally.allowed, tally.denied, tally.exact, tally.refused)).toBeGreaterThan(10)
    },
  )

  it('decide TCP connections as the engine does', options, () => {
    const tally = newTally()
    fc.assert(
      fc.property(scenario, ({ knowsPort, asked, ...documents }) => {
        const set = setOf(documents)
        for (const one of asked) if (isCaller(one)) compareTcp({ set, knowsPort }, one, tally)
      }),
      { numRuns: 60 },
    )
    expect(tally.passed).toBeGreaterThan(100)
  })
})

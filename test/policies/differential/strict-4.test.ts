import { expect, it } from 'vitest'
import { compareRandomly } from '../../support/differential.ts'

it('strict: decisions are those of the reference interpreter, and so are their rules (4 of 4)', () => {
  const { failure, pairs, counts } = compareRandomly('strict', 6_250, 4_000)
  console.info(`${pairs} decisions compared: ${JSON.stringify(Object.fromEntries(counts))}`)
  expect(failure).toBeUndefined()
  expect(pairs).toBeGreaterThanOrEqual(6_250)
  for (const decision of ['reject', 'deny', 'deny by a rule', 'allow by a rule']) {
    expect(counts.get(decision)).toBeGreaterThan(200)
  }
})

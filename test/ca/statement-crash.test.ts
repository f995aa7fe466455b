// kill -9 before single statements of an authority at work: what was answered is there after a restart, the
// step that was under way is there whole or not at all. `npm run soak -- kill` takes every statement.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { testFolder } from '../support/folder.ts'
import { killedAt, problemsOf } from '../support/killed-at.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
let statements = 0
beforeAll(async () => {
  const whole = await killedAt(folder.path, 0)
  expect(problemsOf(whole)).toEqual([])
  expect(whole.answered).toHaveLength(14)
  statements = whole.statements ?? 0
}, 120_000)

const samples = 4
it.each(Array.from({ length: samples }, (_, i) => i))(
  'R15 killed somewhere in part %i of its work, it forgets nothing and does nothing by halves',
  async (part) => {
    const at = 1 + Math.floor(((part + Math.random()) / samples) * statements)
    const found = await killedAt(folder.path, at)
    expect(found.statements, `killed at statement ${at}`).toBeUndefined()
    expect(problemsOf(found), `killed at statement ${at} of ${statements}`).toEqual([])
  },
  120_000,
)

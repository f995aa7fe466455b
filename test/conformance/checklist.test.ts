import { describe, expect, it } from 'vitest'
import { idsIn, parseChecklist, readChecklist } from './checklist.ts'
import { type Evidence, judge } from './judge.ts'
import { toText, totalLine } from './report.ts'

const text = `1.1 IDs
# a comment
ID-1 M one
ID-2 S two
  nobody has it

2 More
  not here
R1 - three
`
const lines = parseChecklist(text)
const evidence = (id: string, outcome: Evidence['outcome'], reason?: string): Evidence => ({
  ...{ id, by: 'a test', outcome },
  ...(reason === undefined ? {} : { reason }),
})

describe('the checklist', () => {
  it('has every line of the standards, and every past defect', () => {
    const ids = readChecklist().map(({ id }) => id)
    const count = (prefix: string) => ids.filter((id) => id.startsWith(prefix)).length
    const parts = ['ID-', 'X5-', 'JW-', 'WT-', 'TB-', 'FE-', 'WA-', 'WE-', 'BR-', 'R']
    expect(parts.map(count)).toEqual([24, 25, 19, 23, 14, 27, 28, 12, 18, 20])
    expect(ids).toHaveLength(190 + 20)
  })

  it('gives reasons to lines and to sections', () => {
    expect(lines.map(({ id, notApplicable }) => [id, notApplicable])).toEqual([
      ['ID-1', undefined],
      ['ID-2', 'nobody has it'],
      ['R1', 'not here'],
    ])
  })

  it('refuses what it cannot read, and what stands twice', () => {
    expect(() => parseChecklist('ID-1 X one')).toThrow('no line of a checklist')
    expect(() => parseChecklist('ID-1 M one\nID-1 M one')).toThrow('ID-1 stands twice')
  })

  it('finds ids in names, whole words only', () => {
    const found = idsIn('JW-10 R7 X5-1: an X509 key of FE-25b, not XJW-1, ID-1-2 or R2D2')
    expect(found).toEqual(['JW-10', 'R7', 'X5-1', 'FE-25b'])
  })
})

describe('a verdict', () => {
  const kinds = (...all: Evidence[]) => judge(lines, all).map(({ kind }) => kind)

  it('needs a test, and none against it', () => {
    const passed = evidence('ID-1', 'passed')
    expect(kinds(passed)).toEqual(['passed', 'not applicable', 'not applicable'])
    expect(kinds(passed, evidence('ID-1', 'failed'))[0]).toBe('failed')
    expect(kinds()[0]).toBe('failed')
    expect(kinds(evidence('ID-1', 'not applicable', 'no agent'))[0]).toBe('not applicable')
  })

  it('is a test’s where there is one, whatever the checklist says', () => {
    expect(kinds(evidence('ID-2', 'failed'), evidence('R1', 'passed')).slice(1)).toEqual([
      'failed',
      'passed',
    ])
  })

  it('is printed with its reason, and counted', () => {
    const verdicts = judge(lines, [evidence('ID-1', 'failed', 'no')])
    expect(verdicts.map(toText)).toEqual([
      'ID-1   M FAIL           one: a test: no',
      'ID-2   S not applicable two: nobody has it',
      'R1     - not applicable three: not here',
    ])
    expect(totalLine(verdicts)).toBe('conformance: 0 passed, 1 failed, 2 not applicable')
    expect(totalLine(judge(lines, [], 'unseen'))).toMatch(/0 passed, 0 failed, 3 not/)
  })
})

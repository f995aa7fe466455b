import { describe, expect, it } from 'vitest'
import { matches, patternOf, patternProblem } from '../../../policies/rules/pattern.ts'

describe('patterns (authorization.md §4.4)', () => {
  it.each([
    ['abc', 'exact', ['abc'], ['ab', 'abcd', 'xabc', 'ABC', '']],
    ['abc*', 'prefix', ['abc', 'abcd', 'abc*'], ['ab', 'xabc', 'ABCD']],
    ['*abc', 'suffix', ['abc', 'xabc', '*abc'], ['abcd', 'bc', 'xABC']],
    ['*', 'present', ['a', '*', '/'], ['']],
  ])('%s is %s', (text, kind, yes, no) => {
    const pattern = patternOf(text)
    expect(pattern.kind).toBe(kind)
    expect(yes.filter((value) => !matches(pattern, value))).toEqual([])
    expect(no.filter((value) => matches(pattern, value))).toEqual([])
  })

  it.each(['abc', 'abc*', '*abc', '*'])('%s is a pattern', (text) => {
    expect(patternProblem(text)).toBeUndefined()
  })

  it.each(['a*b', '*a*', '**', '*a*b', 'a**'])('%s is refused, not taken literally', (text) => {
    expect(patternProblem(text)).toBe(
      `a star inside "${text}" would be taken literally; a star stands at the start, at the end, or alone`,
    )
  })

  it('an empty text is refused', () => {
    expect(patternProblem('')).toBe('an empty pattern matches nothing')
  })
})

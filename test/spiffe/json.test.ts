import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { duplicateMember, isMembers } from '../../spiffe/json.ts'

it('members are those of an object, not of a list or null', () => {
  expect([{}, { a: 1 }].map(isMembers)).toEqual([true, true])
  expect([[], null, 'a', 7, undefined].some(isMembers)).toBe(false)
})

describe('a member that stands twice', () => {
  it('is found wherever it is, however its name is written', () => {
    for (const [text, name] of [
      ['{"a":1,"a":2}', 'a'],
      ['{"a":{"b":1},"c":[{"b":1,"b":1}]}', 'b'],
      ['{"a":1,"\\u0061":2}', 'a'],
      ['{"":[],"":{}}', ''],
      ['{"__proto__":1,"__proto__":2}', '__proto__'],
    ] as const)
      expect(duplicateMember(text), text).toBe(name)
  })

  it('is not seen in values, nor in different objects', () => {
    for (const text of [
      '["a","a"]',
      '[{"a":1},{"a":1}]',
      '{"a":"a\\":1,\\"a","b":{"a":1}}',
      '"a"',
      '7',
    ])
      expect(duplicateMember(text), text).toBeUndefined()
  })

  it('is never seen in what JSON.stringify writes, and always once it is put there', () => {
    const name = fc.string({ minLength: 1 })
    fc.assert(
      fc.property(fc.jsonValue(), name, (value, member) => {
        expect(duplicateMember(JSON.stringify(value, undefined, 1))).toBeUndefined()
        const one = `${JSON.stringify(member)}: ${JSON.stringify(value)}`
        expect(duplicateMember(`[{${one}, ${one}}]`)).toBe(member)
      }),
    )
  })
})

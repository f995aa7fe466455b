import { describe, expect, it } from 'vitest'
import { createPolicyReader, readPolicies } from '../../policies/language/read.ts'
import { policyText } from '../support/policy-text.ts'

const file = (name: string, ...policies: readonly string[]) => ({
  name,
  text: policies.map((it) => policyText('[{}]', { name: it })).join('---\n'),
})

describe('a reader of one set after the other', () => {
  it('reads what readPolicies reads', () => {
    const read = createPolicyReader()
    const files = [file('a.yaml', 'one', 'two'), file('b.yaml', 'three')]
    expect(read(files)).toEqual(readPolicies(files))
    const changed = [file('a.yaml', 'two'), file('c.yaml', 'four')]
    expect(read(changed)).toEqual(readPolicies(changed))
  })

  it('gives the same objects for files that did not change', () => {
    const read = createPolicyReader()
    const first = read([file('a.yaml', 'one'), file('b.yaml', 'two')])
    const second = read([file('a.yaml', 'one'), file('b.yaml', 'three')])
    expect(second.policies[0]).toBe(first.policies[0])
    expect(second.policies[1]).not.toBe(first.policies[1])
  })

  it('refuses two of one name in two files, one of them known, and keeps what it had', () => {
    const read = createPolicyReader()
    const known = [file('a.yaml', 'one')]
    const first = read(known)
    expect(() => read([...known, file('b.yaml', 'one')])).toThrow(
      /b\.yaml:\d+ metadata\.name: a second AuthorizationPolicy shop\/one/,
    )
    expect(read(known).policies[0]).toBe(first.policies[0])
  })

  it('tells the problems of all files at once', () => {
    const broken = (name: string) => ({ name, text: policyText('[{ form: [] }]') })
    const attempt = () => readPolicies([broken('a.yaml'), broken('b.yaml')])
    expect(attempt).toThrow(/a\.yaml:4 spec\.rules\[0\]\.form: unknown key \(and 1 more\)/)
  })
})

import { describe, expect, it } from 'vitest'
import { changedLabels, noLabels } from '../../ca/labels.ts'
import { refusalOf } from '../support/refusal.ts'

const change = (set: Record<string, string>, remove: string[] = []) => ({ set, remove })
const long = 'a'.repeat(64)

describe('labels of an entry', () => {
  it('are set and removed by key; what is not there need not go', () => {
    const first = changedLabels(noLabels, change({ app: 'web', tier: '' }))
    expect(first).toEqual({ app: 'web', tier: '' })
    expect(changedLabels(first, change({ app: 'api' }, ['tier', 'other']))).toEqual({ app: 'api' })
    expect(changedLabels(first, change({}, ['app', 'tier']))).toBe(noLabels)
  })

  it.each(['a', 'A.b-c_9', 'example.org/name', `${'a.'.repeat(100)}b/n`, 'a'.repeat(63)])(
    'may have the key %s',
    (key) => {
      expect(changedLabels(noLabels, change({ [key]: 'x' }))).toEqual({ [key]: 'x' })
    },
  )

  it.each(['', '-a', 'a-', 'a b', 'a*', '__proto__', '/a', 'a/', 'a/b/c', 'A.b/c', long, 'ż'])(
    'never have the key %j',
    (key) => {
      const refusal = refusalOf(() =>
        changedLabels(noLabels, change(Object.fromEntries([[key, 'x']]))),
      )
      expect(refusal).toMatchObject({ code: 'ERR_BAD_REQUEST' })
      expect(refusal?.message).toContain(`${JSON.stringify(key)} is no label`)
    },
  )

  it.each(['*', 'a b', '-a', long, 'a\n'])('never have the value %j', (value) => {
    const refusal = refusalOf(() => changedLabels(noLabels, change({ app: value })))
    expect(refusal?.message).toContain(`set["app"]: ${JSON.stringify(value)} is no value`)
  })

  it('are refused with all that is wrong', () => {
    const refusal = refusalOf(() => changedLabels(noLabels, change({ a: '*', b: 'x' }, ['b', '?'])))
    expect(refusal?.message).toContain('(and 2 more)')
  })

  it('are at most 64', () => {
    const many = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`l${i}`, 'x']))
    const full = changedLabels(noLabels, change(many))
    expect(refusalOf(() => changedLabels(full, change({ more: 'x' })))?.message).toBe(
      'set: makes 65 labels; an entry has at most 64',
    )
    expect(Object.keys(changedLabels(full, change({ more: 'x' }, ['l0'])))).toHaveLength(64)
  })
})

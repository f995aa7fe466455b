import { describe, expect, it } from 'vitest'
import { readPolicies } from '../../../policies/language/read.ts'
import { scopedTo } from '../../../policies/language/scope.ts'
import { policyText } from '../../support/policy-text.ts'

const of = (namespace: string) =>
  `# secret of ${namespace}\n${policyText('[{}]', { namespace, name: `p-${namespace}` })}# end of ${namespace}\n`

const text = `# the file\n---\n${of('a')}---\n${of('b')}...\n---\n${of('c')}`
const files = [
  { name: 'one.yaml', text },
  { name: 'two.yaml', text: of('d') },
]

describe('scopedTo', () => {
  it.each([[['a']], [['b']], [['c']], [['d']], [['a', 'c']], [['b', 'd']], [['a', 'b', 'c', 'd']]])(
    'keeps what concerns %j, in its lines, and no word of the others',
    (namespaces) => {
      const scoped = scopedTo(files, new Set(namespaces))
      const isKept = ({ namespace }: { namespace: string }) => namespaces.includes(namespace)
      expect(readPolicies(scoped).policies).toEqual(readPolicies(files).policies.filter(isKept))
      const words = scoped.map((it) => it.text).join('')
      for (const other of ['a', 'b', 'c', 'd'].filter((it) => !namespaces.includes(it))) {
        expect(words).not.toMatch(new RegExp(`of ${other}\\b|p-${other}|namespace: ${other}`))
      }
    },
  )

  it('leaves a file out that concerns nobody', () => {
    expect(scopedTo(files, new Set(['d'])).map(({ name }) => name)).toEqual(['two.yaml'])
    expect(scopedTo(files, new Set(['e']))).toEqual([])
  })

  it('keeps separators without which two documents were one, with either line end', () => {
    const flow = ['a', 'b', 'c'].map((namespace) => of(namespace)).join('---\r\n')
    const scoped = scopedTo([{ name: 'f', text: `\uFEFF${flow}` }], new Set(['a', 'c']))
    expect(readPolicies(scoped).policies.map(({ namespace }) => namespace)).toEqual(['a', 'c'])
  })
})

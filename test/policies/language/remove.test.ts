import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readPolicies } from '../../../policies/language/read.ts'
import { findDocuments, withoutDocument } from '../../../policies/language/remove.ts'

const kind = 'AuthorizationPolicy' as const
const of = (name: string, more = '') => `apiVersion: security.istio.io/v1
kind: ${kind}   # said
metadata: {  name: ${name}, namespace: shop }
spec: { rules: [{}] }
${more}`
const cut = (text: string, name: string) =>
  withoutDocument({ name: 'f.yaml', text }, { kind, namespace: 'shop', name })?.text

describe('a document that is taken out of its file', () => {
  it.each([
    ['the first', `${of('x')}---\n${of('b')}`, `---\n${of('b')}`],
    ['the last', `${of('a')}---\n${of('x')}`, of('a')],
    [
      'the middle',
      `# head\n---\n${of('a')}---\n${of('x', '# its\n')}--- # b's\n${of('b')}\n\n`,
      `# head\n---\n${of('a')}--- # b's\n${of('b')}\n\n`,
    ],
    ['one without marker', `${of('a')}...\n${of('x')}...\n${of('b')}`, `${of('a')}...\n${of('b')}`],
    [
      'one whose marker is needed',
      `${of('a')}---\n${of('x')}...\n${of('b')}`,
      `${of('a')}---\n${of('b')}`,
    ],
    [
      'one with CRLF',
      `${of('a')}---\n${of('x')}---\n${of('b')}`.replaceAll('\n', '\r\n'),
      `${of('a')}---\n${of('b')}`.replaceAll('\n', '\r\n'),
    ],
    ['behind a byte order mark', `\uFEFF${of('x')}---\n${of('b')}`, `\uFEFF---\n${of('b')}`],
    ['before an empty one', `${of('x')}---\n---\n${of('b')}`, `---\n---\n${of('b')}`],
    ['below a comment', `# head\n${of('x')}`, '# head\n'],
  ])('leaves the rest byte for byte: %s', (_, text, rest) => {
    expect(cut(text, 'x')).toBe(rest)
  })

  it('takes the file along when nothing else stands in it', () => {
    expect(cut(`---\n${of('x')}...\n\n---\n`, 'x')).toBeUndefined()
  })

  it('leaves the others as they are read, whatever stands between', () => {
    const between = fc.constantFrom(
      '---\n',
      '--- # x\n',
      '...\n',
      '...\n\n---\n',
      '---\n# c\n---\n',
    )
    const shape = fc.array(fc.tuple(fc.boolean(), between), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(shape, fc.nat(), (parts, chosen) => {
        const text = parts.map(([long, it], i) => of(`p${i}`, long ? '# end\n' : '') + it).join('')
        const files = [{ name: 'f.yaml', text }]
        const names = parts.map((_, i) => `p${i}`)
        const gone = `p${chosen % names.length}`
        const rest = cut(text, gone)
        const read =
          rest === undefined ? [] : readPolicies([{ name: 'f.yaml', text: rest }]).policies
        expect(read.map(({ name }) => name)).toEqual(names.filter((it) => it !== gone))
        expect(readPolicies(files).policies).toHaveLength(names.length)
      }),
      { numRuns: 50 },
    )
  })

  it('is found by name, with its kind and line', () => {
    const files = [{ name: 'f.yaml', text: `${of('a')}---\n${of('x')}` }]
    expect(findDocuments(files, { namespace: 'shop', name: 'x' })).toMatchObject([
      { kind, line: 7 },
    ])
    expect(findDocuments(files, { namespace: 'shop', name: 'x', kind: 'RateLimit' })).toEqual([])
    expect(findDocuments(files, { namespace: 'bank', name: 'x' })).toEqual([])
  })
})

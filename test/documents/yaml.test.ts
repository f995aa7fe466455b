import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { fieldName, readDocuments, refuseAt } from '../../documents/yaml.ts'
import { IdentityError } from '../../spiffe/errors.ts'

const schema = z.strictObject({
  name: z.string(),
  ports: z.array(z.number()).optional(),
  deep: z.strictObject({ list: z.array(z.strictObject({ on: z.boolean() })) }).optional(),
})

const read = (text: string) => readDocuments(text, 'a.yaml', schema, 'ERR_CONFIG')

/** `place: problem` of every problem. */
function problemsOf(text: string): readonly string[] {
  try {
    read(text)
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    expect(error.code).toBe('ERR_CONFIG')
    return error.fields.map(({ field, problem }) => `${field}: ${problem}`)
  }
  return []
}

describe('readDocuments', () => {
  it('gives each document with its places', () => {
    const [first, second, ...more] = read('name: a\nports:\n  - 1\n  - 2\n---\nname: b\n')
    expect(more).toEqual([])
    expect(first?.value).toEqual({ name: 'a', ports: [1, 2] })
    expect(first?.lineOf(['ports', 1])).toBe(4)
    expect(first?.lineOf(['ports'])).toBe(2)
    expect(first?.lineOf(['ports', 7])).toBe(2)
    expect(second?.value).toEqual({ name: 'b' })
    expect(second?.lineOf(['name'])).toBe(6)
    expect(second?.lineOf(['nothing'])).toBe(6)
  })

  it('says which part of the text a document is', () => {
    const text = '# top\nname: a\n---\n# of b\nname: b\n---\nname: c\n'
    const parts = read(text).map(({ range }) => text.slice(...range))
    expect(parts).toEqual(['name: a\n', '---\n# of b\nname: b\n', '---\nname: c\n'])
  })

  it.each(['', '\n', '# nothing\n', '---\n', '---\n# nothing\n---\n', '\uFEFF'])(
    'skips what is empty: %j',
    (text) => {
      expect(read(text)).toEqual([])
    },
  )

  it('skips empty documents between others', () => {
    expect(read('---\nname: a\n---\n---\nname: b\n---\n').map((it) => it.value.name)).toEqual([
      'a',
      'b',
    ])
  })

  it.each([
    ['an unknown key', 'name: a\nother: 1\n', 'a.yaml:2 other: unknown key'],
    ['__proto__', 'name: a\n__proto__: { name: b }\n', 'a.yaml:2 __proto__: unknown key'],
    [
      'a wrong type',
      'name: a\nports:\n  - 1\n  - x\n',
      'a.yaml:4 ports[1]: Invalid input: expected number, received string',
    ],
    [
      'a wrong type deep down',
      'name: a\ndeep:\n  list:\n    - on: true\n    - on: "true"\n',
      'a.yaml:5 deep.list[1].on: Invalid input: expected boolean, received string',
    ],
    [
      'a missing key',
      '\nports: [1]\n',
      'a.yaml:2 name: Invalid input: expected string, received undefined',
    ],
    ['a scalar', '\nhello\n', 'a.yaml:2: Invalid input: expected object, received string'],
    ['a null', '~\n', 'a.yaml:1: Invalid input: expected object, received null'],
    ['a duplicate key', 'name: a\nname: b\n', 'a.yaml:2: Map keys must be unique'],
    ['a tab', 'deep:\n\tlist: []\n', 'a.yaml:2: Tabs are not allowed as indentation'],
    ['an unknown tag', 'name: !js a\n', 'a.yaml:1: Unresolved tag: !js'],
    [
      'an alias',
      'name: a\nports: &p [1]\ndeep: *p\n',
      'a.yaml:3: aliases (&name, *name) are not accepted',
    ],
    [
      'an alias to nothing much',
      'name: a\nports: &p []\ndeep: *p\n',
      'a.yaml:3: aliases (&name, *name) are not accepted',
    ],
    [
      'a merge key',
      'deep: &d { list: [] }\n<<: *d\n',
      'a.yaml:2: aliases (&name, *name) are not accepted',
    ],
    [
      'another version of YAML',
      '%YAML 1.1\n---\nname: yes\n',
      'a.yaml:2: directives (%YAML, %TAG) are not accepted',
    ],
    [
      'a tag directive',
      '%TAG ! tag:yaml.org,2002:\n---\nname: !str a\n',
      'a.yaml:2: directives (%YAML, %TAG) are not accepted',
    ],
    [
      'lists without end',
      `name: a\ndeep: ${'['.repeat(33)}${']'.repeat(33)}\n`,
      'a.yaml:2: nested deeper than 32 levels',
    ],
    [
      'lists that no stack holds',
      `name: a\ndeep: ${'['.repeat(50_000)}${']'.repeat(50_000)}\n`,
      'a.yaml:2: nested deeper than 32 levels',
    ],
    ['too long a text', `name: ${'a'.repeat(1024 * 1024)}`, 'a.yaml:1: longer than 1 MiB'],
  ])('refuses %s', (_, text, problem) => {
    expect(problemsOf(text)).toEqual([problem])
  })

  it('refuses a bomb of aliases where it starts, without opening it', () => {
    const levels = Array.from({ length: 30 }, (_, i) => `l${i + 1}: &l${i + 1} [*l${i}, *l${i}]`)
    const bomb = ['l0: &l0 [x]', ...levels].join('\n')
    expect(problemsOf(bomb)).toEqual(['a.yaml:2: aliases (&name, *name) are not accepted'])
  })

  it('refuses what is nested too deeply for the reader', () => {
    const [problem, ...more] = problemsOf(`name: ${'['.repeat(5000)}`)
    expect(more).toEqual([])
    expect(problem).toMatch(/^a\.yaml:1: /)
  })

  it('lists every problem, and the first in the message', () => {
    const text = 'name: 1\nports: [x]\nother: 1\n'
    expect(problemsOf(text)).toHaveLength(3)
    expect(() => read(text)).toThrow(
      'a.yaml:1 name: Invalid input: expected string, received number (and 2 more)',
    )
  })

  it('counts lines through all documents', () => {
    expect(problemsOf('name: a\n---\nname: b\nx: 1\n')).toEqual(['a.yaml:4 x: unknown key'])
  })
})

describe('places', () => {
  it('are written as people write them', () => {
    expect(fieldName(['rules', 0, 'to', 1, 'operation', 'paths', 2])).toBe(
      'rules[0].to[1].operation.paths[2]',
    )
    expect(fieldName([])).toBe('')
  })

  it('refuseAt throws one error with all of them', () => {
    const problems = [
      { line: 3, path: ['a', 0], problem: 'odd' },
      { line: 4, path: [], problem: 'even' },
    ]
    expect(() => refuseAt('f', 'ERR_POLICY', problems)).toThrow(
      expect.objectContaining({
        code: 'ERR_POLICY',
        message: 'f:3 a[0]: odd (and 1 more)',
        fields: [
          { field: 'f:3 a[0]', problem: 'odd' },
          { field: 'f:4', problem: 'even' },
        ],
      }),
    )
  })
})

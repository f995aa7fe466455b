import { describe, expect, it } from 'vitest'
import { readPolicies } from '../../policies/read.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { policyText } from '../support/policy-text.ts'

const head = 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n'
const named = `${head}metadata: { name: a, namespace: n }\n`

function problemsOf(...texts: readonly string[]): readonly string[] {
  try {
    readPolicies(texts.map((text, i) => ({ name: `${i}.yaml`, text })))
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    expect(error.code).toBe('ERR_POLICY')
    return error.fields.map(({ field, problem }) => `${field}: ${problem}`)
  }
  return []
}

/** The one problem of a policy with this operation, without its place. */
function operationProblem(operation: string): string {
  const place = '0.yaml:4 spec.rules[0].to[0].operation'
  const [problem = '', ...more] = problemsOf(policyText(`[{ to: [{ operation: ${operation} }] }]`))
  expect(more).toEqual([])
  expect(problem.slice(0, place.length)).toBe(place)
  return problem.slice(place.length)
}

describe('readPolicies', () => {
  it('gives the policies of all files, with the lines of their rules', () => {
    const text = `${named}spec:\n  rules:\n    - {}\n    - to:\n        - operation: { methods: [GET] }\n`
    const second = `${head}metadata: { name: b }\nspec: { action: DENY, rules: [{}] }\n`
    const files = [
      { name: 'one.yaml', text: `${text}---\n${second}` },
      { name: 'two.yaml', text: `${head}metadata: { name: c }\nspec: {}\n` },
    ]
    expect(readPolicies(files)).toEqual([
      {
        namespace: 'n',
        name: 'a',
        action: 'ALLOW',
        rules: [{}, { to: [{ operation: { methods: ['GET'] } }] }],
        file: 'one.yaml',
        lines: [6, 7],
      },
      {
        namespace: 'default',
        name: 'b',
        action: 'DENY',
        rules: [{}],
        file: 'one.yaml',
        lines: [13],
      },
      { namespace: 'default', name: 'c', action: 'ALLOW', rules: [], file: 'two.yaml', lines: [] },
    ])
  })

  it('takes v1beta1, labels and annotations', () => {
    const text =
      'apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\n' +
      'metadata: { name: a, labels: { x: y }, annotations: { note: z } }\nspec: {}\n'
    expect(problemsOf(text)).toEqual([])
  })

  it.each([
    [
      'an unknown key',
      `${named}spec:\n  rules:\n    - {}\n  selector: {}\n`,
      ['0.yaml:7 spec.selector: unknown key'],
    ],
    [
      'an unknown key of a source',
      policyText('[{ from: [{ source: { namespaces: [a] } }] }]'),
      [
        '0.yaml:4 spec.rules[0].from[0].source.principals: Invalid input: expected array, received undefined',
        '0.yaml:4 spec.rules[0].from[0].source.namespaces: unknown key',
      ],
    ],
    [
      'conditions',
      policyText('[{ when: [{ key: a, values: [b] }] }]'),
      ['0.yaml:4 spec.rules[0].when: unknown key'],
    ],
    [
      'a wrong type',
      policyText('{}'),
      ['0.yaml:4 spec.rules: Invalid input: expected array, received object'],
    ],
    [
      'a null rule',
      policyText('[~]'),
      ['0.yaml:4 spec.rules[0]: Invalid input: expected object, received null'],
    ],
    [
      'an empty from and to',
      policyText('[{ from: [], to: [] }]'),
      [
        '0.yaml:4 spec.rules[0].from: a list that is given has to have an item',
        '0.yaml:4 spec.rules[0].to: a list that is given has to have an item',
      ],
    ],
    [
      'spiffe:// in a principal',
      policyText('[{ from: [{ source: { principals: [spiffe://td/a] } }] }]'),
      [
        '0.yaml:4 spec.rules[0].from[0].source.principals[0]: a principal is written without spiffe://, as trust-domain/path',
      ],
    ],
    [
      'a DENY without rules',
      policyText('[]', { action: 'DENY' }),
      ['0.yaml:4 spec.rules: a DENY policy without rules denies nothing'],
    ],
    [
      'an alias',
      `${named}spec:\n  rules:\n    - &r {}\n    - *r\n`,
      ['0.yaml:7: aliases (&name, *name) are not accepted'],
    ],
    [
      'a duplicate key',
      `${named}spec: {}\nspec: { rules: [{}] }\n`,
      ['0.yaml:5: Map keys must be unique'],
    ],
    [
      'another action',
      policyText('[{}]', { action: 'AUDIT' }),
      ['0.yaml:4 spec.action: Invalid option: expected one of "ALLOW"|"DENY"'],
    ],
    [
      'another kind',
      policyText('[{}]').replace('AuthorizationPolicy', 'PeerAuthentication'),
      ['0.yaml:2 kind: Invalid input: expected "AuthorizationPolicy"'],
    ],
    [
      'another version',
      policyText('[{}]').replace('/v1', '/v2'),
      [
        '0.yaml:1 apiVersion: Invalid option: expected one of "security.istio.io/v1"|"security.istio.io/v1beta1"',
      ],
    ],
    [
      'a bad name',
      policyText('[{}]', { name: 'a/b' }),
      ['0.yaml:3 metadata.name: a name has a-z, 0-9, hyphens and dots'],
    ],
    [
      'a dry run',
      `${head}metadata: { name: a, annotations: { istio.io/dry-run: "true" } }\nspec: {}\n`,
      ['0.yaml:3 metadata.annotations: dry runs are not supported yet'],
    ],
  ])('refuses %s', (_, text, problems) => {
    expect(problemsOf(text)).toEqual(problems)
  })

  it.each([
    ['{}', ': an operation names methods, paths or ports'],
    ['{ methods: [] }', '.methods: a list that is given has to have an item'],
    ['{ hosts: [a], methods: [GET] }', '.hosts: unknown key'],
    [
      '{ methods: [get] }',
      '.methods[0]: methods are compared as sent: "get" would never match, write GET',
    ],
    ['{ methods: [""] }', '.methods[0]: an empty pattern matches nothing'],
    [
      '{ paths: [/a, "/a*b"] }',
      '.paths[1]: a star inside "/a*b" would be taken literally; a star stands at the start, at the end, or alone',
    ],
    ['{ paths: [a] }', '.paths[0]: a path pattern starts with a slash or a star'],
    ['{ paths: ["/a/{*}"] }', '.paths[0]: path templates are not supported yet'],
    ['{ paths: ["/a?b"] }', '.paths[0]: paths are compared without query and fragment'],
    ['{ ports: [80] }', '.ports[0]: Invalid input: expected string, received number'],
    ['{ ports: [http] }', '.ports[0]: a port is a number from 0 to 65535, in quotes'],
    ['{ ports: ["08443"] }', '.ports[0]: a port is a number from 0 to 65535, in quotes'],
    ['{ ports: ["65536"] }', '.ports[0]: a port is a number from 0 to 65535, in quotes'],
  ])('refuses the operation %s', (operation, problem) => {
    expect(operationProblem(operation)).toBe(problem)
  })

  it('refuses a second policy of one name, here and in another file', () => {
    const text = policyText('[{}]')
    expect(problemsOf(`${text}---\n${text}`)).toEqual([
      '0.yaml:8 metadata.name: a second policy shop/test (the first is in 0.yaml)',
    ])
    expect(problemsOf(text, text)).toEqual([
      '1.yaml:3 metadata.name: a second policy shop/test (the first is in 0.yaml)',
    ])
    expect(problemsOf(text, policyText('[{}]', { namespace: 'other' }))).toEqual([])
  })
})

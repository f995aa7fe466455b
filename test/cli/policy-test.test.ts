// castellan policy test: cases beside policies, what it says of those that fail, and what it refuses to read.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { castellan, startCastellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'

const examples = join(import.meta.dirname, '../../policies/examples')

const policies = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: callers, namespace: shop }
spec:
  rules:
    - from: [{ source: { principals: [td/ns/a/sa/x] } }]
      to: [{ operation: { methods: [GET], paths: [/a] } }]
    - to: [{ operation: { ports: ["9000"] } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec: { action: DENY, rules: [{ to: [{ operation: { paths: [/admin] } }] }] }
`

/** A file of one case in the short form. */
const oneCase = (http: string, expected: string, more = '') => `policies: [p.yaml]
${more}cases:
  - name: the case
    request:
      source: td/ns/a/sa/x
      destination: td/ns/shop/sa/web
      http: ${http}
    expect: ${expected}
`

const folder = testFolder()
const put = (name: string, text: string) => {
  writeFileSync(join(folder.path, name), text)
  return join(folder.path, name)
}
beforeAll(() => put('p.yaml', policies))
afterAll(() => folder[Symbol.dispose]())

const test = (...args: readonly string[]) => castellan(['policy', 'test', ...args])
const testOf = (text: string, ...args: readonly string[]) =>
  test(put('t.cases.yaml', text), ...args)
/** What is printed, without the folder that the test happens to work in. */
const shown = (text: string) => text.replaceAll(`${folder.path}/`, '')

describe('cases that hold', () => {
  it('those of policies/examples, each rule of which a case matches', async () => {
    const { code, stdout, stderr } = await startCastellan(['policy', 'test', '.'], {
      cwd: examples,
    })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout.trimEnd().split('\n')).toEqual([
      'ledger.cases.yaml (strict): 13 of 13 cases as expected; 8 of 8 rules matched by a case',
      'payments.cases.yaml (strict): 8 of 8 cases as expected; 4 of 4 rules matched by a case',
    ])
  })

  it('say which rules no case has matched', async () => {
    const { code, stdout } = await testOf(oneCase('GET /a', '{ decision: allow, rule: 0 }'))
    expect(code).toBe(0)
    expect(shown(stdout)).toBe(`p.yaml:8 shop/callers, rule 1: no case matches it
p.yaml:13 shop/no-admin, rule 0: no case matches it
t.cases.yaml (strict): 1 of 1 cases as expected; 1 of 3 rules matched by a case
`)
  })

  it('are judged by the profile and the mesh that are named', async () => {
    const double = (more: string) => oneCase('GET /x%2F..//a', 'allow', more)
    expect((await testOf(double(''))).code).toBe(0)
    expect((await testOf(double(''), '--profile', 'istio')).code).toBe(1)
    expect((await testOf(double('profile: istio\n'))).code).toBe(1)
    const decode = 'pathNormalization: decode-and-merge-slashes\n'
    const mesh = put('mesh.yaml', decode)
    expect((await testOf(double('profile: istio\n'), '--mesh', mesh)).code).toBe(0)
    expect((await testOf(double(`profile: istio\nmesh: { ${decode.trim()} }\n`))).code).toBe(0)
    expect((await testOf(double('profile: istio\nmesh: mesh.yaml\n'))).code).toBe(0)
  })

  it('are read in the form of the corpus, of the profile that they speak of', async () => {
    const line = (id: string, expected: object) =>
      JSON.stringify({
        ...{ row: 1, id, expect: expected, why: 'because' },
        request: { destination: { namespace: 'shop' }, http: { method: 'GET', path: '/z' } },
      })
    const deny = { decision: 'deny', status: 403 }
    const lines = [line('1.1', { strict: deny }), '', line('1.2', { istio: deny })]
    // p.cases.jsonl is about p.yaml beside it
    const file = put('p.cases.jsonl', lines.join('\n'))
    const { code, stdout } = await test(file)
    expect(code).toBe(0)
    expect(shown(stdout)).toContain(
      'p.cases.jsonl (strict): 1 of 1 cases as expected, 1 of another',
    )
  })
})

describe('a case that does not hold', () => {
  it('is explained, with the change that would make it hold', async () => {
    const { code, stdout } = await testOf(oneCase('POST /a', 'allow'))
    expect(code).toBe(1)
    const lines = shown(stdout).split('\n')
    expect(lines[0]).toBe('t.cases.yaml:3 the case: expected allow')
    expect(lines[1]).toMatch(/^ {4}deny 403: .* POST \/a: denied, none of 2 ALLOW rules matches$/)
    expect(lines).toContain('        to[0].operation.methods: has "POST", the rule says "GET"')
    expect(lines).toContain(
      '      p.yaml:6 shop/callers: add "POST" to spec.rules[0].to[0].operation.methods',
    )
    expect(lines.at(-2)).toMatch(/^t\.cases\.yaml \(strict\): 0 of 1 cases as expected/)
  })

  it.each([
    ['deny', 'another decision'],
    ['[deny, reject]', 'none of several'],
    ['{ decision: allow, rule: 1 }', 'another rule'],
    ['{ decision: allow, policy: shop/no-admin }', 'another policy'],
    ['{ decision: allow, status: 403 }', 'another status'],
  ])('has exit code 1 for %s: %s', async (expected) => {
    const decision = expected.startsWith('[') ? `{ decision: ${expected} }` : expected
    const { code, stdout } = await testOf(oneCase('GET /a', decision))
    expect(code).toBe(1)
    expect(stdout).toMatch(/^ {4}allow: .*: allowed by ALLOW policy shop\/callers, rule 0/m)
  })

  it('speaks of no rules near by when one matches and a DENY outranks it', async () => {
    const open = put('open.yaml', policies.replace('paths: [/a]', 'paths: ["*"]'))
    const { code, stdout } = await testOf(oneCase('GET /admin', 'allow'), '--policies', open)
    expect(code).toBe(1)
    expect(stdout).toMatch(/denied by DENY policy shop\/no-admin, rule 0/)
    expect(stdout).not.toContain('nearest')
  })

  it('is one JSON value with -o json', async () => {
    const { code, stdout, stderr } = await testOf(oneCase('POST /a', 'allow'), '-o', 'json')
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
    const file = join(folder.path, 't.cases.yaml')
    const at = (line: number) => `${join(folder.path, 'p.yaml')}:${line}`
    expect(JSON.parse(stdout)).toMatchObject({
      cases: 1,
      failed: 1,
      suites: [
        {
          ...{ file, profile: 'strict', cases: 1, skipped: 0, rules: 3 },
          failures: [
            {
              ...{ file, line: 3, name: 'the case', expected: { decision: ['allow'] } },
              got: { decision: 'deny', status: 403 },
              explanation: { edits: [{ do: 'add', policy: 'shop/callers', values: ['POST'] }] },
            },
          ],
          uncovered: [
            { at: at(6), policy: 'shop/callers', rule: 0 },
            { at: at(8), policy: 'shop/callers', rule: 1 },
            { at: at(13), policy: 'shop/no-admin', rule: 0 },
          ],
        },
      ],
    })
  })
})

describe('a file of cases that cannot be meant is refused with file, line and field', () => {
  const head = 'policies: [p.yaml]\ncases:\n  - name: a\n'
  it.each([
    [oneCase('GET', 'deny'), ':7 cases[0].request.http: write METHOD PATH'],
    [oneCase('GET /a', 'alow'), ':8 cases[0].expect: write allow, deny or reject'],
    [oneCase('GET /a', '{ decision: allow, stauts: 200 }'), ':8 cases[0].expect.stauts: unknown'],
    [oneCase('{ method: GET, pth: /a }', 'deny'), ':7 cases[0].request.http.pth: unknown key'],
    [oneCase('{ headers: { x: 5 } }', 'deny'), ':7 cases[0].request.http.headers: write NAME'],
    [
      `${head}    request: { source: 5 }\n    expect: deny\n`,
      ':4 cases[0].request.source: write a',
    ],
    [
      `${head}    request: { source: { ip: 300.1.1.1 } }\n    expect: reject\n`,
      ':3 cases[0].request.source.ip: no IP address',
    ],
    [`${head}    expect: deny\n`, ':3 cases[0].request: '],
    ['policies: [p.yaml]\ncases: []\n', ':2 cases: a file of cases has cases'],
    ['', ':1: the file is empty'],
    ['cases: [{ name: a, request: {}, expect: deny }]\n', ': which policies?'],
  ])('%j', async (text, problem) => {
    const { code, stdout, stderr } = await testOf(text)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(shown(stderr)).toContain(`t.cases.yaml${problem}`)
  })

  it.each([
    ['{}\nnonsense', ':1 request: '],
    ['nonsense', ':1: no JSON'],
    ['{"request":{},"expect":{"strikt":{"decision":"deny"}}}', ':1 expect.strikt: unknown key'],
    ['{"request":{},"expect":{"strict":{"decision":"no"}}}', ':1 expect.strict.decision: is allow'],
    [
      '{"request":{"sorce":{}},"expect":{"strict":{"decision":"reject"}}}',
      ':1 request.sorce: unknown key',
    ],
  ])('%s', async (text, problem) => {
    const { code, stderr } = await test(put('p.cases.jsonl', text))
    expect(code).toBe(2)
    expect(shown(stderr)).toContain(`p.cases.jsonl${problem}`)
  })

  it('and so is what holds none', async () => {
    const { code, stderr } = await test(join(folder.path, 'p.yaml'))
    expect({ code, isTold: /no file of cases: name \*\.cases\.yaml/.test(stderr) }).toEqual({
      ...{ code: 2, isTold: true },
    })
    expect((await test(join(folder.path, 'nowhere.cases.yaml'))).stderr).toContain('ENOENT')
    expect((await test(import.meta.dirname)).stderr).toContain('holds no *.cases.yaml')
  })
})

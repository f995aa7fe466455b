// castellan policy explain: why, for people and for programs; and that the change it offers, made in the files
// as `-o json` says it, turns the decision round.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Document, isSeq, parseAllDocuments, stringify } from 'yaml'
import { documents, type RandomDocument, request } from '../policies/explain/random.ts'
import { castellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'

const payments = join(import.meta.dirname, '../../policies/examples/payments.yaml')

const folder = testFolder()
const put = (name: string, text: string) => {
  writeFileSync(join(folder.path, name), text)
  return join(folder.path, name)
}
afterAll(() => folder[Symbol.dispose]())

const explain = (...args: readonly string[]) => castellan(['policy', 'explain', ...args])

const checkout = 'spiffe://example.org/ns/shop/sa/checkout'
const asked = (method: string, path: string, principal = checkout) =>
  JSON.stringify({
    ...{ source: { principal }, destination: { namespace: 'payments', port: 8443 } },
    http: { method, path },
  })

const explained = async (line: string) => {
  const { code, stdout, stderr } = await explain('--policies', payments, '--request', line)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return stdout.replaceAll(payments, 'payments.yaml').split('\n')
}

describe('an explanation for people', () => {
  it('of what is allowed: the rule field by field, and who would deny it', async () => {
    const lines = await explained(asked('GET', '/payments/./1'))
    expect(lines[0]).toBe(
      `allow: ${checkout} → namespace payments GET /payments/1: allowed by ALLOW policy payments/checkout, rule 0 (payments.yaml:11)`,
    )
    expect(lines).toContain('  path         /payments/./1, forwarded as /payments/1')
    expect(lines).toContain('  -      to[0].operation.methods: has "GET", the rule says "POST"')
    expect(lines).toContain('  holds  to[1].operation.methods: has "GET", the rule says "GET"')
    expect(lines).toContain('what would deny it:')
    expect(lines.at(-2)).toMatch(/^ {2}a DENY policy in namespace payments with the rule /)
  })

  it('of what no rule allows: the nearest rules, and the value that is missing', async () => {
    const lines = await explained(asked('DELETE', '/payments/1'))
    expect(lines[0]).toMatch(/^deny 403: .* DELETE \/payments\/1: denied, none of 3 ALLOW rules/)
    const near = lines.indexOf('nearest ALLOW rules:')
    expect(lines.slice(near + 1, near + 3)).toEqual([
      '  payments/checkout, rule 0 (payments.yaml:11)',
      '    to[1].operation.methods: has "DELETE", the rule says "GET"',
    ])
    expect(lines.slice(-3)).toEqual([
      'what would allow it:',
      '  payments.yaml:11 payments/checkout: add "DELETE" to spec.rules[0].to[1].operation.methods',
      '',
    ])
  })

  it('of what a DENY denies: its fields, and no rules near by, since one would allow it', async () => {
    const lines = await explained(asked('GET', '/payments/refunds/7'))
    expect(lines[0]).toMatch(/: denied by DENY policy payments\/no-refunds, rule 0/)
    expect(lines).toContain('  holds  to[0].operation.ports: has "8443", the rule says "8443"')
    expect(lines).not.toContain('nearest ALLOW rules:')
  })

  it('of what is refused before any policy: the reason alone', async () => {
    expect(await explained(asked('GET', '/%zz'))).toEqual([
      'reject 400: a broken percent escape',
      '',
    ])
  })

  it('of a connection without a port names none', async () => {
    const [first] = await explained(`{"source":{"principal":"${checkout}"}}`)
    expect(first).toBe(
      `deny: ${checkout} → namespace default TCP: denied, no ALLOW policy speaks of this destination`,
    )
  })
})

it('reads its request from a file or from standard input as well', async () => {
  const line = asked('POST', '/payments')
  const direct = await explain('--policies', payments, '--request', line)
  const file = put('request.json', `${line}\n`)
  expect(await explain('--policies', payments, '--request', file)).toEqual(direct)
  const args = ['policy', 'explain', '--policies', payments, '--request', '-']
  expect(await castellan(args, line)).toEqual(direct)
})

it.each([
  [['--policies', payments], '--request: is missing'],
  [['--request', '{}'], '--policies: is missing: name a file or a folder'],
  [['--policies', payments, '--request', '{oops'], '--request: no JSON'],
  [['--policies', payments, '--request', '{"sorce":{}}'], '--request: sorce: unknown key'],
  [
    ['--policies', payments, '--request', '{"source":{"principal":"x"}}'],
    '--request: source.principal: no SPIFFE ID',
  ],
  [['--policies', payments, '--request', '{}', '--profile', 'odd'], 'is strict or istio'],
])('says what is wrong with %j', async (args, problem) => {
  const { code, stdout, stderr } = await explain(...args)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain(problem)
})

/** A step of `edits` as programs read it. */
interface Step {
  readonly do: 'add' | 'take' | 'drop' | 'create'
  readonly document?: object
  readonly policy?: string
  readonly file?: string
  readonly path?: readonly (string | number)[]
  readonly values?: readonly unknown[]
}

const isSame = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other)

function change(document: Document, { do: verb, path = [], values = [] }: Step): void {
  const before: unknown = document.getIn(path, true)
  const list: unknown[] = isSeq(before) ? before.toJSON() : []
  if (verb === 'add') document.setIn(path, document.createNode([...list, ...values]))
  if (verb === 'take') {
    const kept = list.filter((it) => !values.some((value) => isSame(it, value)))
    document.setIn(path, document.createNode(kept))
  }
  if (verb === 'drop') document.deleteIn(path)
}

/** The text of the file after the steps, each done where it says. */
function edited(text: string, steps: readonly Step[]): string {
  let all: Document[] = [...parseAllDocuments(text)]
  const isNamed = (document: Document, { policy }: Step) =>
    `${document.getIn(['metadata', 'namespace'])}/${document.getIn(['metadata', 'name'])}` ===
    policy
  for (const step of steps) {
    if (step.do === 'create') {
      all.push(...parseAllDocuments(stringify(step.document)))
      continue
    }
    const its = all.find((document) => isNamed(document, step))
    if (its === undefined) throw new Error(`no policy ${step.policy}`)
    if (step.path?.length === 0) all = all.filter((document) => document !== its)
    else change(its, step)
  }
  return all.map((document) => String(document)).join('---\n')
}

describe('the change that is offered, made in the file', () => {
  let mesh = ''
  beforeAll(() => {
    mesh = put('mesh.yaml', 'trustDomain: td\n')
  })

  const textOf = (all: readonly RandomDocument[]) =>
    all.map((it) => `# a comment\n${stringify(it)}`).join('---\n')

  it('turns round what policy eval says', async () => {
    const done = new Map<string, number>()
    const count = (what: string) => done.set(what, (done.get(what) ?? 0) + 1)
    const one = async (all: readonly RandomDocument[], line: object) => {
      const file = put('p.yaml', textOf(all))
      const given = ['--policies', file, '--mesh', mesh, '-o', 'json']
      const before = await explain(...given, '--request', JSON.stringify(line))
      const { decision, remedy, edits }: { decision: string; remedy: string; edits: Step[] } =
        JSON.parse(before.stdout)
      count(decision)
      if (edits.length === 0) return expect(remedy).toBe('')
      for (const step of edits) count(step.do)
      put('p.yaml', edited(textOf(all), edits))
      const after = await castellan(['policy', 'eval', ...given], JSON.stringify(line))
      expect(JSON.parse(after.stdout).decision, remedy).toBe(decision === 'deny' ? 'allow' : 'deny')
    }
    const some = fc.asyncProperty(documents, request, async (all, line) => {
      // a file without a document is no file of policies
      fc.pre(all.length > 0)
      await one(all, line)
    })
    await fc.assert(some, { numRuns: 60 })
    for (const what of ['deny', 'add', 'create']) expect(done.get(what)).toBeGreaterThan(0)
  })
})

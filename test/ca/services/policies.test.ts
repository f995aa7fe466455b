import { describe, expect, it } from 'vitest'
import { Policies } from '../../../proto/gen/castellan/policy/v1/policies_pb.js'
import { denialOf } from '../../support/ca-client.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const ca = sharedCa()
const client = () => ca.local.client(Policies)

const policy = (name: string, rules = '[{}]') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec: { rules: ${rules} }
`
const limit = (name: string) => `apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: ${name}, namespace: shop }
spec: { limits: [{ requests: 1, per: 1s }] }
`
const cases = (expected: string) => `cases:
  - name: whoever comes
    request: { source: example.org/ns/web/sa/web, destination: example.org/ns/shop/sa/web, http: GET / }
    expect: ${expected}
`
const apply = (text: string, message = '') =>
  client().applyPolicies({ files: [{ name: 'shop.yaml', text }], message })
const inForce = async () => (await client().getPolicies({})).files.map(({ text }) => text)

describe('castellan.policy.v1.Policies', () => {
  it('keeps versions: who, when, why; and rolls back to one as a new version', async () => {
    const before = Date.now()
    const { version: one } = await apply(policy('one'), 'the first')
    const { version: two } = await apply(policy('two'))
    expect(await client().rollbackPolicies({ version: one })).toMatchObject({
      version: two + 1n,
      files: [{ name: 'shop.yaml', text: policy('one') }],
    })
    await client().rollbackPolicies({ version: two, message: 'it was right' })
    const { versions } = await client().listVersions({})
    expect(versions).toMatchObject([
      { version: two + 2n, caller: 'local', message: 'it was right' },
      { version: two + 1n, caller: 'local', message: `rollback to version ${one}` },
      { version: two, caller: 'local', message: '' },
      { version: one, caller: 'local', message: 'the first' },
    ])
    for (const { at } of versions) expect(Number(at)).toBeGreaterThanOrEqual(before)
    expect(await inForce()).toEqual([policy('two')])
    // nothing new, no new version
    expect((await client().rollbackPolicies({ version: two })).version).toBe(two + 2n)
    expect(ca.lines.join('')).toMatch(/"audit":true,"version":\d+,"before":\d+,"caller":"local"/)
  })

  it('refuses a rollback to what is not kept', async () => {
    expect(await denialOf(client().rollbackPolicies({ version: 999n }))).toMatchObject({
      code: 'NotFound',
      message: expect.stringMatching(/^policy version 999 is not kept; \d+ to \d+ are$/),
    })
  })

  it('deletes one document, of the kind that is meant', async () => {
    await apply(`# head\n${policy('a')}---\n${limit('a')}---\n${policy('b')}`)
    const named = { namespace: 'shop', name: 'a' }
    expect(await denialOf(client().deletePolicy(named))).toEqual({
      code: 'InvalidArgument',
      message: 'kind: is missing: shop/a is the name of AuthorizationPolicy and RateLimit',
    })
    expect(await denialOf(client().deletePolicy({ ...named, kind: 'Rate' }))).toMatchObject({
      message: expect.stringContaining('kind: is none of AuthorizationPolicy,'),
    })
    await client().deletePolicy({ ...named, kind: 'RateLimit' })
    expect(await inForce()).toEqual([`# head\n${policy('a')}---\n${policy('b')}`])
    await client().deletePolicy(named)
    expect(await inForce()).toEqual([`# head\n---\n${policy('b')}`])
    expect(await denialOf(client().deletePolicy(named))).toEqual({
      code: 'NotFound',
      message: 'there is no policy shop/a',
    })
    const [last] = (await client().listVersions({})).versions
    expect(last?.message).toBe('AuthorizationPolicy shop/a deleted')
  })

  it('deletes the file with its last document', async () => {
    await apply(policy('only'))
    const { files } = await client().deletePolicy({ namespace: 'shop', name: 'only' })
    expect(files).toEqual([])
  })

  it('refuses a set whole, with every finding, and a message that is none', async () => {
    await apply(policy('good'))
    const bad = `${policy('x', '[{ to: 1 }]')}---\n${policy('y').replace('spec', 'spek')}`
    const refusal = await denialOf(apply(bad))
    expect(refusal?.message).toMatch(/^shop\.yaml:4 spec\.rules.* \(and \d+ more\)$/)
    const twice = [
      { name: 'a', text: policy('a') },
      { name: 'a', text: policy('b') },
    ]
    expect(await denialOf(client().applyPolicies({ files: twice }))).toMatchObject({
      message: 'files[1].name: a comes twice',
    })
    expect(await denialOf(apply(policy('good'), 'x\ny'))).toMatchObject({
      message: expect.stringContaining('message: is not at most 200 printable characters'),
    })
    expect(await inForce()).toEqual([policy('good')])
  })

  it('keeps the tests of a set with it, which are no policies', async () => {
    const files = [
      { name: 'shop.cases.yaml', text: cases('allow') },
      { name: 'shop.yaml', text: policy('tested') },
    ]
    expect((await client().applyPolicies({ files })).files).toMatchObject(files)
  })

  it('refuses a set that fails its own tests, and one with an error that a request shows', async () => {
    await apply(policy('good'))
    const tested = [
      { name: 'shop.cases.yaml', text: cases('deny') },
      { name: 'shop.yaml', text: policy('tested') },
    ]
    expect(await denialOf(client().applyPolicies({ files: tested }))).toMatchObject({
      message: expect.stringContaining(
        'shop.cases.yaml:2: whoever comes: expected deny, is allow: ALLOW policy shop/tested, rule 0 (shop.yaml:4)',
      ),
    })
    const exact = '[{ to: [{ operation: { paths: [/admin] } }] }]'
    const denying = policy('twin', exact).replace('{ rules', '{ action: DENY, rules')
    const both = [{ name: 'shop.yaml', text: `${policy('all')}---\n${denying}` }]
    const problem = await denialOf(client().applyPolicies({ files: both }))
    expect(problem?.message).toContain('shop.yaml:9 spec.rules[0].to[0].operation.paths')
    expect(problem?.message).toContain('[path-without-slash-twin]')
    expect(await inForce()).toEqual([policy('good')])
    const excuse = 'annotations: { castellan.dev/lint-ignore: path-without-slash-twin }'
    const excused = denying.replace('namespace: shop', `namespace: shop, ${excuse}`)
    await apply(`${policy('all')}---\n${excused}`)
    const misspelt = excused.replace('slash-twin', 'slash-tvin')
    expect(await denialOf(apply(misspelt))).toMatchObject({
      message: expect.stringContaining('"path-without-slash-tvin" is no rule of the linter'),
    })
  })
})

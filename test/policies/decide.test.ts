import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Request } from '../../policies/attributes/request.ts'
import { compile } from '../../policies/compile.ts'
import { decide, policyNameOf } from '../../policies/decide.ts'
import { defaultMesh } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { httpRequest, policySet, policyText, tcpRequest } from '../support/policy-text.ts'

const allows = (set: ReturnType<typeof policySet>, asked: Request) => decide(set, asked).allow

describe('a decision (authorization.md §4.2, §4.3)', () => {
  const get = httpRequest('GET /a', { from: 'td/ns/x/sa/y' })

  it.each([
    ['nothing', [], false, ''],
    ['an ALLOW without rules', [policyText('[]')], false, ''],
    ['an empty ALLOW rule', [policyText('[{}]')], true, 'shop/test'],
    ['an empty DENY rule', [policyText('[{}]', { action: 'DENY' })], false, 'shop/test'],
    [
      'a DENY over an ALLOW, in either order',
      [policyText('[{}]'), policyText('[{}]', { action: 'DENY', name: 'no' })],
      false,
      'shop/no',
    ],
    ['an ALLOW elsewhere', [policyText('[{}]', { namespace: 'other' })], false, ''],
    [
      'a DENY elsewhere',
      [policyText('[{}]'), policyText('[{}]', { namespace: 'other', action: 'DENY' })],
      true,
      'shop/test',
    ],
    [
      'an ALLOW of the root namespace',
      [policyText('[{}]', { namespace: 'istio-system' })],
      true,
      'istio-system/test',
    ],
    [
      'a DENY of the root namespace',
      [policyText('[{}]'), policyText('[{}]', { namespace: 'istio-system', action: 'DENY' })],
      false,
      'istio-system/test',
    ],
  ])('with %s', (_, documents, allow, name) => {
    const decision = decide(policySet(...documents), get)
    expect(decision.allow).toBe(allow)
    expect(policyNameOf(decision)).toBe(name)
    expect(decide(policySet(...documents.toReversed()), get).allow).toBe(allow)
  })

  it.each([
    ['[{ from: [{ source: { principals: [td/ns/x/sa/y] } }] }]', true],
    ['[{ from: [{ source: { principals: [td/ns/x/*] } }] }]', true],
    ["[{ from: [{ source: { principals: ['*/sa/y'] } }] }]", true],
    ["[{ from: [{ source: { principals: ['*'] } }] }]", true],
    ['[{ from: [{ source: { principals: [td/ns/x/sa/ya] } }] }]', false],
    ['[{ from: [{ source: { principals: [td/ns/x/sa] } }] }]', false],
    ['[{ from: [{ source: { principals: [a, td/ns/x/sa/y] } }] }]', true],
    ['[{ from: [{ source: { principals: [a] } }, { source: { principals: [td*] } }] }]', true],
    ['[{ to: [{ operation: { methods: [GET], paths: [/b] } }] }]', false],
    ['[{ to: [{ operation: { methods: [GET] } }, { operation: { paths: [/b] } }] }]', true],
    ['[{ to: [{ operation: { ports: ["8443"] } }] }]', true],
    ['[{ to: [{ operation: { ports: ["844"] } }] }]', false],
    [
      '[{ from: [{ source: { principals: [a] } }], to: [{ operation: { methods: [GET] } }] }]',
      false,
    ],
    ['[{ to: [{ operation: { paths: [/b] } }] }, { to: [{ operation: { paths: [/a] } }] }]', true],
  ])('rules %s: %s', (rules, allow) => {
    expect(allows(policySet(policyText(rules)), get)).toBe(allow)
  })

  it('without identity no principal matches, not even *', () => {
    const rules = "[{ from: [{ source: { principals: ['*'] } }] }]"
    expect(allows(policySet(policyText(rules)), httpRequest('GET /'))).toBe(false)
    const deny = policySet(policyText('[{}]'), policyText(rules, { name: 'no', action: 'DENY' }))
    expect(allows(deny, httpRequest('GET /'))).toBe(true)
    expect(allows(deny, get)).toBe(false)
  })

  it('a DENY matches any reading of the path, an ALLOW what is forwarded', () => {
    const rules = '[{ to: [{ operation: { paths: [/a%2Fb] } }] }]'
    const asked = httpRequest('GET /a%2fb')
    expect(allows(policySet(policyText(rules)), asked)).toBe(false)
    const deny = policyText(rules, { name: 'no', action: 'DENY' })
    expect(allows(policySet(policyText('[{}]'), deny), asked)).toBe(false)
    expect(allows(policySet(policyText('[{}]'), deny), httpRequest('GET /a/b'))).toBe(true)
  })

  it('the root namespace can be another one', () => {
    const texts = [{ name: 'f', text: policyText('[{}]', { namespace: 'mesh' }) }]
    expect(allows(compile(readPolicies(texts)), get)).toBe(false)
    expect(
      allows(
        compile(readPolicies(texts), { mesh: { ...defaultMesh, rootNamespace: 'mesh' } }),
        get,
      ),
    ).toBe(true)
  })
})

describe('TCP (authorization.md §4.9)', () => {
  const tcp = tcpRequest({ from: 'td/a', port: 5432 })
  const deny = (rules: string) =>
    policySet(policyText('[{}]', { name: 'all' }), policyText(rules, { action: 'DENY' }))

  it.each([
    ['[{ to: [{ operation: { ports: ["5432"] } }] }]', true],
    ['[{ from: [{ source: { principals: [td/a] } }] }]', true],
    ['[{ to: [{ operation: { ports: ["5432"], methods: [GET] } }] }]', false],
    ["[{ to: [{ operation: { paths: ['*'] } }] }]", false],
    // the whole rule goes, not only the alternative
    ['[{ to: [{ operation: { ports: ["5432"] } }, { operation: { methods: [GET] } }] }]', false],
  ])('ALLOW %s: %s', (rules, allow) => {
    expect(allows(policySet(policyText(rules)), tcp)).toBe(allow)
  })

  it.each([
    ['[{ to: [{ operation: { methods: [GET] } }] }]', false],
    ['[{ to: [{ operation: { paths: [/x], ports: ["5432"] } }] }]', false],
    ['[{ to: [{ operation: { paths: [/x], ports: ["1"] } }] }]', true],
    [
      '[{ from: [{ source: { principals: [td/b] } }], to: [{ operation: { paths: [/x] } }] }]',
      true,
    ],
  ])('DENY %s leaves %s', (rules, allow) => {
    expect(allows(deny(rules), tcp)).toBe(allow)
  })
})

describe('policies/examples/payments.yaml', () => {
  const name = 'policies/examples/payments.yaml'
  const set = compile(readPolicies([{ name, text: readFileSync(name, 'utf8') }]))
  const to = 'example.org/ns/payments/sa/api'
  const shop = 'example.org/ns/shop/sa/checkout'
  const ops = 'example.org/ns/operations/sa/probe'

  it.each([
    [shop, 'POST /payments', 'payments/checkout', true],
    [shop, 'GET /payments/17?full=1', 'payments/checkout', true],
    [ops, 'GET /internal/health', 'payments/checkout', true],
    [shop, 'DELETE /payments/17', '', false],
    [shop, 'GET /payments/refunds', 'payments/no-refunds', false],
    [shop, 'GET /payments/17/../refunds%2f3', 'payments/no-refunds', false],
    [shop, 'GET /health', '', false],
    [ops, 'POST /payments', '', false],
    ['example.org/ns/shop/sa/checkout2', 'POST /payments', '', false],
    ['example.com/ns/shop/sa/checkout', 'POST /payments', '', false],
    [undefined, 'POST /payments', '', false],
  ])('%s %s: %s %s', (from, line, policyName, allow) => {
    const decision = decide(set, httpRequest(line, { from, to }))
    expect(policyNameOf(decision)).toBe(policyName)
    expect(decision.allow).toBe(allow)
  })

  it.each([
    ['example.org/ns/payments/sa/ledger', 5432, true],
    ['example.org/ns/payments/sa/ledger', 8443, false],
    [shop, 5432, false],
  ])('%s over TCP to %i: %s', (from, port, allow) => {
    expect(allows(set, tcpRequest({ from, to, port }))).toBe(allow)
  })
})

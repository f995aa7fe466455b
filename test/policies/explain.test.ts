import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { decide } from '../../policies/decide.ts'
import { explainDecision } from '../../policies/explain.ts'
import { readPolicies } from '../../policies/read.ts'
import { namespaceOf, type Request } from '../../policies/request.ts'
import { httpRequest, policySet, policyText, tcpRequest } from '../support/policy-text.ts'
import { document, policy, request } from '../support/random-policies.ts'

const explained = (set: PolicySet, asked: Request) =>
  explainDecision(set, asked, decide(set, asked))

/** What an operator does with a remedy: edits the policy it names, or adds the one it writes. */
function applied(set: PolicySet, remedy: string, asked: Request): PolicySet {
  const written = /with the rule (\{.*\})$/.exec(remedy)?.[1]
  const namespace = namespaceOf(asked.destination.id)
  const old = set.policies.map(({ name, namespace, action, rules }) => ({
    rules: JSON.stringify(rules),
    named: { name, namespace, action },
  }))
  if (written !== undefined)
    old.push({ rules: `[${written}]`, named: { name: 'new.one', namespace, action: 'ALLOW' } })
  const edit =
    / (\S+)\/(\S+): add (".*") to spec\.rules\[(\d+)\]\.(from|to)\[(\d+)\]\.(source|operation)\.(\w+)$/.exec(
      remedy,
    )
  if ((edit === null) === (written === undefined)) throw new Error(`no remedy: ${remedy}`)
  const [, where, name, value = '', rule = '', side = '', at = '', inner = '', field = ''] =
    edit ?? []
  const texts = old.map(({ rules, named }) => {
    if (named.name !== name || named.namespace !== where) return policyText(rules, named)
    const edited = JSON.parse(rules)
    edited[rule][side][at][inner][field].push(JSON.parse(value))
    return policyText(JSON.stringify(edited), named)
  })
  return compile(readPolicies([{ name: 'edited.yaml', text: texts.join('---\n') }]), {
    rootNamespace: set.rootNamespace,
  })
}

const rules =
  '[{ from: [{ source: { principals: [td/a] } }], to: [{ operation: { methods: [GET], paths: [/x] } }] }]'

describe('explainDecision', () => {
  it('names what allowed and what denied, without remedy', () => {
    const set = policySet(
      policyText(rules),
      policyText('[{ to: [{ operation: { paths: [/y] } }] }]', { action: 'DENY', name: 'no' }),
    )
    expect(explained(set, httpRequest('GET /x', { from: 'td/a' }))).toEqual({
      reason:
        'spiffe://td/a → spiffe://td/ns/shop/sa/web GET /x: allowed by ALLOW policy shop/test, rule 0 (test.yaml:4)',
      remedy: '',
    })
    expect(explained(set, httpRequest('GET /y', { from: 'td/a' }))).toEqual({
      reason:
        'spiffe://td/a → spiffe://td/ns/shop/sa/web GET /y: denied by DENY policy shop/no, rule 0 (test.yaml:9)',
      remedy: '',
    })
  })

  it.each([
    ['td/b', 'GET /x', '"td/b" to spec.rules[0].from[0].source.principals'],
    ['td/a', 'POST /x', '"POST" to spec.rules[0].to[0].operation.methods'],
    ['td/a', 'GET /z', '"/z" to spec.rules[0].to[0].operation.paths'],
  ])('adds one value: %s %s', (from, line, change) => {
    const set = policySet(policyText(rules))
    const asked = httpRequest(line, { from })
    const { reason, remedy } = explained(set, asked)
    expect(reason).toMatch(/: denied, none of 1 ALLOW rules matches$/)
    expect(remedy).toBe(`test.yaml:4 shop/test: add ${change}`)
    expect(decide(applied(set, remedy, asked), asked).allow).toBe(true)
  })

  it('writes a rule where nothing comes near', () => {
    for (const asked of [httpRequest('GET /x', { from: 'td/b' }), tcpRequest({ from: 'td/b' })]) {
      const { reason, remedy } = explained(policySet(), asked)
      expect(reason).toMatch(/: denied, no ALLOW policy speaks of this destination$/)
      expect(remedy).toMatch(/^an ALLOW policy in namespace shop with the rule \{/)
      expect(decide(applied(policySet(), remedy, asked), asked).allow).toBe(true)
    }
  })

  it('says nothing that a policy file may not say, or that would allow more', () => {
    for (const line of ['get /x', 'GET /x*', 'G* /x', 'GET /a*b', 'GET /{x}']) {
      expect(
        explained(policySet(policyText(rules)), httpRequest(line, { from: 'td/a' })).remedy,
      ).toBe('')
    }
    expect(explained(policySet(policyText(rules)), httpRequest('GET /x')).remedy).toBe('')
    expect(explained(policySet(), httpRequest('GET /x')).reason).toMatch(
      /^a peer without identity → /,
    )
  })

  it('stays short, however long a path the caller thinks of', () => {
    const asked = httpRequest(`GET /${'p'.repeat(8_000)}`, { from: 'td/a' })
    for (const set of [policySet(policyText(rules)), policySet()]) {
      const { reason, remedy } = explained(set, asked)
      expect(reason).toContain(` /${'p'.repeat(511)}…`)
      expect(reason.length).toBeLessThan(1024)
      expect(remedy).toBe('')
    }
  })

  it('keeps to the root namespace of the set', () => {
    const texts = [{ name: 'f', text: policyText(rules, { namespace: 'mesh' }) }]
    const set = compile(readPolicies(texts), { rootNamespace: 'mesh' })
    const asked = httpRequest('GET /z', { from: 'td/a' })
    expect(explained(set, asked).remedy).toMatch(/^f:4 mesh\/test: add "\/z"/)
  })

  it('any remedy, applied, allows', () => {
    let remedies = 0
    fc.assert(
      fc.property(
        fc.array(policy, { maxLength: 4 }),
        fc.array(request, { minLength: 8, maxLength: 8 }),
        (specs, all) => {
          const set = policySet(...specs.map(document))
          for (const { request: asked } of all) {
            const { remedy } = explained(set, asked)
            if (remedy === '') continue
            remedies++
            expect(decide(applied(set, remedy, asked), asked).allow).toBe(true)
          }
        },
      ),
      { numRuns: 60 },
    )
    expect(remedies).toBeGreaterThan(40)
  })
})

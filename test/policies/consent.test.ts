// CUSTOM rules: who has to consent, what a consent is worth, and what is said of them offline.
import { expect, it } from 'vitest'
import { answerOf } from '../../policies/cases/evaluate.ts'
import { consentTo } from '../../policies/consent.ts'
import { decideBy } from '../../policies/decide.ts'
import { explainDecision } from '../../policies/explain.ts'
import { httpRequest, policySet, policyText } from '../support/policy-text.ts'

const paths = (path: string) => `[{ to: [{ operation: { paths: ["${path}"] } }] }]`
const custom = (name: string, provider: string, rules = paths('/a')) =>
  policyText(rules, { name, action: `CUSTOM, provider: { name: ${provider} }` })
const open = policyText(paths('/a'), { name: 'open' })
const request = httpRequest('GET /a')

/** What is decided after the consent to these rules, by name. */
function decided(set: ReturnType<typeof policySet>, ...names: readonly string[]) {
  const guard = set.guardOf(request.destination)
  const rules = guard.custom.flatMap((it) => it.find(request) ?? [])
  const consented = rules.filter(({ policy }) => names.includes(policy.name))
  expect(consented.length).toBe(names.length)
  return decideBy(guard, request, new Set(consented.map(consentTo)))
}

it('every provider has to consent, and one consent counts for all rules of its provider', () => {
  const set = policySet(custom('one', 'x'), custom('two', 'y'), custom('three', 'x'), open)
  expect(decided(set)).toMatchObject({ allow: false, rule: { policy: { name: 'one' } } })
  expect(decided(set, 'one')).toMatchObject({ allow: false, rule: { policy: { name: 'two' } } })
  expect(decided(set, 'two')).toMatchObject({ allow: false, rule: { policy: { name: 'one' } } })
  expect(decided(set, 'one', 'two')).toMatchObject({
    allow: true,
    rule: { policy: { name: 'open' } },
  })
})

it('offline the authorizer is named as the one who decides', () => {
  const set = policySet(custom('one', 'x'), open)
  const decision = decided(set)
  const guard = set.guardOf(request.destination)
  const raw = { method: 'GET', target: '/a', host: 'web', headers: [] }
  expect(answerOf(1, { kind: 'decided', decision, request, guard, raw })).toEqual({
    ...{ id: 1, decision: 'deny', status: 403, policy: 'shop/one', rule: 0 },
    reason:
      'CUSTOM policy shop/one, rule 0 (test.yaml:4): its authorizer x decides, which nobody asks offline',
  })
  expect(explainDecision(set, request, decision).reason).toMatch(
    /denied by CUSTOM policy shop\/one, rule 0 \(test.yaml:4\), for which the authorizer x decides$/,
  )
})

it('what a DENY or no ALLOW denies after consent is explained without the CUSTOM rule', () => {
  const deny = policyText(paths('/a'), { name: 'deny', action: 'DENY' })
  const denied = policySet(custom('one', 'x'), deny, open)
  const first = explainDecision(denied, request, decided(denied, 'one'))
  expect(first.edits.map((it) => it.policy.name)).toEqual(['deny'])
  const closed = policySet(custom('one', 'x'), policyText(paths('/b'), { name: 'other' }))
  const second = explainDecision(closed, request, decided(closed, 'one'))
  expect(second.edits.map((it) => it.policy.name)).toEqual(['other'])
  expect(second.remedy).toContain('"/a"')
})

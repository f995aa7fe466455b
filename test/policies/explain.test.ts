// Explanations by example; that offered changes do what they say is proven in explain/flip.test.ts.
import { describe, expect, it } from 'vitest'
import type { Request } from '../../policies/attributes/request.ts'
import { compile, type PolicySet } from '../../policies/compile.ts'
import { decide } from '../../policies/decide.ts'
import { explainDecision } from '../../policies/explain.ts'
import { defaultMesh } from '../../policies/language/mesh.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { httpRequest, policySet, policyText, tcpRequest } from '../support/policy-text.ts'

const explained = (set: PolicySet, asked: Request) =>
  explainDecision(set, asked, decide(set, asked))

const remedyOf = (rules: string, asked: Request, action = 'ALLOW') => {
  const allow = policyText('[{}]', { name: 'all' })
  const policy = policyText(rules, { action })
  return explained(action === 'ALLOW' ? policySet(policy) : policySet(policy, allow), asked).remedy
}

const rules =
  '[{ from: [{ source: { principals: [td/a] } }], to: [{ operation: { methods: [GET], paths: [/x] } }] }]'

const own = (rules: string, spec = '') => `apiVersion: castellan.dev/v1
kind: AuthorizationPolicy
metadata: { name: own, namespace: shop }
spec: { ${spec} rules: ${rules} }
`

describe('the reason', () => {
  it('names what allowed and what denied', () => {
    const set = policySet(
      policyText(rules),
      policyText('[{ to: [{ operation: { paths: [/y] } }] }]', { action: 'DENY', name: 'no' }),
    )
    expect(explained(set, httpRequest('GET /x', { from: 'td/a' })).reason).toBe(
      'spiffe://td/a → spiffe://td/ns/shop/sa/web GET /x: allowed by ALLOW policy shop/test, rule 0 (test.yaml:4)',
    )
    expect(explained(set, httpRequest('GET /y', { from: 'td/a' })).reason).toBe(
      'spiffe://td/a → spiffe://td/ns/shop/sa/web GET /y: denied by DENY policy shop/no, rule 0 (test.yaml:9)',
    )
  })

  it('says when nothing matched, nothing is there, or only what has expired', () => {
    const asked = httpRequest('GET /z', { from: 'td/a' })
    expect(explained(policySet(policyText(rules)), asked).reason).toMatch(
      /: denied, none of 1 ALLOW rules matches$/,
    )
    expect(explained(policySet(), asked).reason).toMatch(
      /: denied, no ALLOW policy speaks of this destination$/,
    )
    const documents = readPolicies([{ name: 'f', text: own('[{}]', 'expires: "2020-01-01",') }])
    const set = compile(documents, { now: Date.parse('2030-01-01') })
    const { reason, near, remedy } = explained(set, asked)
    expect(reason).toMatch(
      /: denied, the ALLOW policies of this destination have no rule in force$/,
    )
    expect(near).toEqual([])
    // what has expired is not taken for what allows
    expect(remedy).toMatch(/^an ALLOW policy in namespace shop/)
  })

  it('says that plaintext was denied before any rule, which no rule can change', () => {
    const text = `${policyText('[{}]')}---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: mtls, namespace: shop }
spec: { mtls: { mode: STRICT } }
`
    const set = compile(readPolicies([{ name: 'f', text }]))
    const { reason, remedy } = explained(set, httpRequest('GET /x'))
    expect(reason).toMatch(/: denied, plaintext where PeerAuthentication demands mutual TLS$/)
    expect(remedy).toBe('')
  })
})

describe('what would allow a request', () => {
  it.each([
    ['td/b', 'GET /x', '"td/b" to spec.rules[0].from[0].source.principals'],
    ['td/a', 'POST /x', '"POST" to spec.rules[0].to[0].operation.methods'],
    ['td/a', 'GET /z', '"/z" to spec.rules[0].to[0].operation.paths'],
  ])('is one value more: %s %s', (from, line, change) => {
    expect(remedyOf(rules, httpRequest(line, { from }))).toBe(
      `test.yaml:4 shop/test: add ${change}`,
    )
  })

  const asked = (headers: string[], claims?: Record<string, unknown>): Request => {
    const plain = httpRequest('GET /x', { from: 'td/a' })
    const { http } = plain
    if (http === undefined) throw new Error('no HTTP')
    const values = (name: string) => (name === 'x-role' || name === 'x-api-key' ? headers : [])
    return { ...plain, claims, http: { ...http, headers: { ...http.headers, values } } }
  }
  const when = (key: string, lists: string) => `[{ when: [{ key: "${key}", ${lists} }] }]`

  it('is a value of a header or a claim, all of them where an ALLOW wants all', () => {
    expect(remedyOf(when('request.headers[X-Role]', 'values: [admin]'), asked(['user']))).toBe(
      'test.yaml:4 shop/test: add "user" to spec.rules[0].when[0].values',
    )
    expect(remedyOf(when('request.headers[X-Role]', 'values: [admin]'), asked(['a', 'b']))).toBe(
      'test.yaml:4 shop/test: add "a", "b" to spec.rules[0].when[0].values',
    )
    const claims = { iss: 'i', sub: 's', realm: { roles: ['a', 'b'] } }
    expect(
      remedyOf(when('request.auth.claims[realm][roles]', 'values: [root]'), asked([], claims)),
    ).toBe('test.yaml:4 shop/test: add "a" to spec.rules[0].when[0].values')
    expect(remedyOf(when('request.auth.principal', 'values: [i/t]'), asked([], claims))).toBe(
      'test.yaml:4 shop/test: add "i/s" to spec.rules[0].when[0].values',
    )
  })

  it('never writes a secret into a policy', () => {
    const { remedy, near } = explained(
      policySet(policyText(when('request.headers[x-api-key]', 'values: [s3cret]'))),
      asked(['0ther']),
    )
    expect(remedy).toMatch(/^an ALLOW policy in namespace shop with the rule/)
    expect(near[0]?.failing).toEqual([
      {
        name: 'request.headers[x-api-key]',
        place: 'when[0].values',
        wanted: ['(hidden)'],
        value: '(hidden)',
      },
    ])
  })

  it('is one exception less, when others stay', () => {
    expect(
      remedyOf(when('request.headers[x-role]', 'notValues: [guest, bot]'), asked(['guest'])),
    ).toBe('test.yaml:4 shop/test: take "guest" out of spec.rules[0].when[0].notValues')
    const notPaths = (...paths: string[]) =>
      `[{ to: [{ operation: { notPaths: ${JSON.stringify(paths)} } }] }]`
    expect(remedyOf(notPaths('/x', '/y'), asked([]))).toBe(
      'test.yaml:4 shop/test: take "/x" out of spec.rules[0].to[0].operation.notPaths',
    )
    // without its last one the rule would take anything
    expect(remedyOf(notPaths('/x'), asked([]))).toMatch(/^an ALLOW policy/)
  })

  it('is an exemption less', () => {
    const set = policySet(own('[{ exceptFor: [{ source: { principals: [td/a, td/b] } }] }]'))
    const { remedy, near } = explained(set, asked([]))
    expect(remedy).toBe(
      'test.yaml:4 shop/own: take "td/a" out of spec.rules[0].exceptFor[0].source.principals',
    )
    expect(near[0]?.failing[0]?.place).toBe('exceptFor[0].source')
  })

  it('is a rule where nothing comes near, for this workload alone', () => {
    for (const it of [httpRequest('GET /x', { from: 'td/b' }), tcpRequest({ from: 'td/b' })]) {
      expect(explained(policySet(), it).remedy).toMatch(
        /^an ALLOW policy in namespace shop with the rule \{/,
      )
    }
    const plain = httpRequest('GET /x', { from: 'td/b' })
    const labelled = { ...plain, destination: { ...plain.destination, labels: { app: 'web' } } }
    expect(explained(policySet(), labelled).remedy).toMatch(
      /^an ALLOW policy in namespace shop for app=web with the rule/,
    )
  })

  it('goes by the address of whoever has no identity', () => {
    const plain = httpRequest('GET /x')
    const sourceIp = { bits: 32, value: 0x0a010101n } as const
    expect(explained(policySet(), { ...plain, sourceIp }).remedy).toContain(
      '"ipBlocks":["10.1.1.1"]',
    )
    expect(explained(policySet(), plain).remedy).toBe('')
  })

  it('says nothing that a policy file may not say, or that would allow more', () => {
    for (const line of ['GET /x*', 'G* /x', 'GET /a*b', 'GET /{x}']) {
      expect(remedyOf(rules, httpRequest(line, { from: 'td/a' }))).toBe('')
    }
    expect(remedyOf(rules, httpRequest('GET /x'))).toBe('')
  })

  it('stays short, however long a path the caller thinks of', () => {
    const long = httpRequest(`GET /${'p'.repeat(8_000)}`, { from: 'td/a' })
    for (const set of [policySet(policyText(rules)), policySet()]) {
      const { reason, remedy } = explained(set, long)
      expect(reason).toContain(` /${'p'.repeat(511)}…`)
      expect(reason.length).toBeLessThan(1024)
      expect(remedy).toBe('')
    }
  })

  it('keeps to the root namespace of the set', () => {
    const texts = [{ name: 'f', text: policyText(rules, { namespace: 'mesh' }) }]
    const set = compile(readPolicies(texts), { mesh: { ...defaultMesh, rootNamespace: 'mesh' } })
    expect(explained(set, httpRequest('GET /z', { from: 'td/a' })).remedy).toMatch(
      /^f:4 mesh\/test: add "\/z"/,
    )
  })
})

describe('what a DENY gives way to', () => {
  const asked = httpRequest('DELETE /x', { from: 'td/a' })

  it('is a value more where it says of whom it does not speak', () => {
    const from = '[{ from: [{ source: { notPrincipals: [td/b] } }] }]'
    expect(remedyOf(from, asked, 'DENY')).toBe(
      'test.yaml:4 shop/test: add "td/a" to spec.rules[0].from[0].source.notPrincipals',
    )
  })

  it('is an exemption in our own language, and a source excepted in Istio’s', () => {
    const to = '[{ to: [{ operation: { methods: [DELETE] } }] }]'
    expect(remedyOf(to, asked, 'DENY')).toBe(
      'test.yaml:4 shop/test: add {"source":{"notPrincipals":["td/a"]}} to spec.rules[0].from',
    )
    const set = policySet(own(to, 'action: DENY,'), policyText('[{}]'))
    expect(explained(set, asked).remedy).toBe(
      'test.yaml:4 shop/own: add {"source":{"principals":["td/a"]}} to spec.rules[0].exceptFor',
    )
  })

  it('is every source by which it matches', () => {
    const from =
      '[{ from: [{ source: { principals: [td/a] } }, { source: { principals: ["td/*"] } }] }]'
    expect(remedyOf(from, asked, 'DENY')).toBe(
      'test.yaml:4 shop/test: add "td/a" to spec.rules[0].from[0].source.notPrincipals; then ' +
        'test.yaml:4 shop/test: add "td/a" to spec.rules[0].from[1].source.notPrincipals',
    )
  })

  it('is a value less, or the whole policy, of somebody unknown', () => {
    const unknown = httpRequest('DELETE /x')
    const methods = (...names: string[]) =>
      `[{ to: [{ operation: { methods: ${JSON.stringify(names)} } }] }]`
    expect(remedyOf(methods('DELETE', 'PUT'), unknown, 'DENY')).toBe(
      'test.yaml:4 shop/test: take "DELETE" out of spec.rules[0].to[0].operation.methods',
    )
    expect(remedyOf(methods('DELETE'), unknown, 'DENY')).toBe(
      'test.yaml:2 shop/test: delete the policy',
    )
  })

  it('is several steps when several policies are in the way', () => {
    const deny = (name: string) =>
      policyText('[{ from: [{ source: { notPrincipals: [td/b] } }] }]', { name, action: 'DENY' })
    const { edits, remedy } = explained(policySet(deny('one'), deny('two')), asked)
    expect(edits.map((it) => it.do)).toEqual(['add', 'add', 'create'])
    expect(remedy).toMatch(/shop\/(one|two): add .*; then .*shop\/(one|two): add .*; then an ALLOW/)
  })
})

describe('what would deny what is allowed', () => {
  it('is the caller out of the list, or a DENY of just this request', () => {
    const from = (...names: string[]) =>
      `[{ from: [{ source: { principals: ${JSON.stringify(names)} } }] }]`
    const asked = httpRequest('GET /x', { from: 'td/a' })
    expect(remedyOf(from('td/a', 'td/b'), asked)).toBe(
      'test.yaml:4 shop/test: take "td/a" out of spec.rules[0].from[0].source.principals',
    )
    expect(remedyOf(from('td/*'), asked)).toBe(
      'a DENY policy in namespace shop with the rule {"from":[{"source":{"principals":["td/a"]}}],"to":[{"operation":{"methods":["GET"],"paths":["/x"]}}]}',
    )
    expect(remedyOf('[{}]', httpRequest('GET /x'))).toBe(
      'test.yaml:4 shop/test: without spec.rules[0]',
    )
  })
})

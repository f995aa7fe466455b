// Fields of rules where the profiles part, and where engines of this kind were wrong: one sentence each.
import { describe, expect, it } from 'vitest'
import { answerOf, evaluatorOf, meshOf } from '../../support/differential.ts'
import type { OracleMesh, OracleRequest } from '../../support/oracle/decide.ts'

type Decided = 'allow' | 'deny' | 'reject'
type Sentence = readonly [
  why: string,
  rule: object,
  request: Partial<OracleRequest>,
  strict: Decided,
  istio: Decided,
]

const x = 'spiffe://td/ns/a/sa/x'
const get = (http: NonNullable<OracleRequest['http']> = {}): Partial<OracleRequest> => ({
  http: { method: 'GET', host: 'h', path: '/', ...http },
})
const peer = (principal: string | undefined) => ({ ...get(), source: { principal } })
const token = (claims: Readonly<Record<string, unknown>>) => ({ ...get(), jwt: { claims } })
const from = (source: object) => ({ from: [{ source }] })
const to = (operation: object) => ({ to: [{ operation }] })
const when = (key: string, more: object) => ({ when: [{ key, ...more }] })

const policy = (action: string, rule: object, name = 'p') => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name, namespace: 'app' },
  spec: { action, rules: [rule] },
})
const authentication = (rule: object) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'RequestAuthentication',
  metadata: { name: 'jwt', namespace: 'app' },
  spec: { jwtRules: [rule] },
})

const mesh: OracleMesh = {
  trustDomain: 'td',
  trustDomainAliases: ['old'],
  trustedHops: 1,
  trustedProxies: ['::ffff:192.0.2.0/120'],
}

function decided(documents: readonly object[], asked: Partial<OracleRequest>, change = {}) {
  const request = { destination: { namespace: 'app' }, ...asked }
  return (['strict', 'istio'] as const).map((profile) => {
    const evaluator = evaluatorOf(documents, meshOf({ ...mesh, ...change }, profile))
    return answerOf(request, evaluator).decision
  })
}

const allowing: readonly Sentence[] = [
  [
    'an escape in other digits',
    to({ paths: ['/%c3%a9'] }),
    get({ path: '/%C3%A9' }),
    'allow',
    'deny',
  ],
  ['a slash that is escaped', to({ paths: ['/a/b'] }), get({ path: '/a%2Fb' }), 'allow', 'deny'],
  ['a host without its port', to({ hosts: ['h'] }), get({ host: 'H:80' }), 'allow', 'deny'],
  [
    'a header host',
    when('request.headers[host]', { values: ['h'] }),
    get({ host: 'H:80' }),
    'allow',
    'deny',
  ],
  [
    'a header host as sent',
    when('request.headers[:authority]', { values: ['H'] }),
    get({ host: 'H' }),
    'allow',
    'allow',
  ],
  [
    'another case of it',
    when('request.headers[:authority]', { values: ['h'] }),
    get({ host: 'H' }),
    'allow',
    'deny',
  ],
  ['nobody', from({ principals: ['*'] }), get(), 'deny', 'deny'],
  ['a name that is no SPIFFE ID', from({ principals: ['*'] }), peer('foo'), 'reject', 'allow'],
  ['such a name, named', from({ principals: ['foo'] }), peer('foo'), 'reject', 'deny'],
  [
    'such a name of a trust domain',
    from({ trustDomains: ['td'] }),
    peer('td/ns/a/sa/x'),
    'reject',
    'deny',
  ],
  [
    'a scheme in capitals',
    from({ principals: ['*/sa/x'] }),
    peer('SPIFFE://td/ns/a/sa/x'),
    'reject',
    'deny',
  ],
  ['a bare trust domain', from({ trustDomains: ['td'] }), peer('spiffe://td'), 'allow', 'deny'],
  [
    'a namespace of a namesake',
    from({ namespaces: ['a'] }),
    peer('spiffe://f/ns/a/sa/x'),
    'deny',
    'allow',
  ],
  [
    'a namespace of another form',
    from({ namespaces: ['a'] }),
    peer('spiffe://td/x/ns/a/sa/x'),
    'deny',
    'allow',
  ],
  ['not a namespace, on plaintext', from({ notNamespaces: ['a'] }), get(), 'deny', 'allow'],
  [
    'not a namespace, of no form',
    from({ notNamespaces: ['a'] }),
    peer('spiffe://td/b'),
    'deny',
    'allow',
  ],
  [
    'a service account with a dot',
    from({ serviceAccounts: ['a/x.y'] }),
    peer('spiffe://td/ns/a/sa/xzy'),
    'deny',
    'deny',
  ],
  [
    'a list inside of a list',
    when('request.auth.claims[g]', { values: ['a'] }),
    token({ g: [['a']] }),
    'deny',
    'deny',
  ],
  ['a number', when('request.auth.claims[n]', { values: ['5'] }), token({ n: 5 }), 'allow', 'deny'],
  [
    'a subject that is no text',
    from({ requestPrincipals: ['*'] }),
    token({ iss: 'i', sub: 5 }),
    'deny',
    'deny',
  ],
  [
    'what a filter left behind',
    when('experimental.envoy.filters.a[b]', { notValues: ['c'] }),
    get(),
    'deny',
    'allow',
  ],
  [
    'SNI in capitals',
    when('connection.sni', { values: ['a.h'] }),
    { ...get(), tls: { sni: 'A.H' } },
    'allow',
    'deny',
  ],
  [
    'a trusted proxy as it is mapped',
    from({ remoteIpBlocks: ['10.1.1.1'] }),
    { ...get({ headers: [['x-forwarded-for', '10.1.1.1']] }), source: { ip: '192.0.2.7' } },
    'allow',
    'allow',
  ],
  [
    'a host among the fields',
    to({ hosts: ['h'] }),
    { http: { method: 'GET', path: '/', headers: [['Host', 'h']] } },
    'allow',
    'allow',
  ],
]

const denying: readonly Sentence[] = [
  [
    'an escape in other digits',
    to({ paths: ['/a%2Fb'] }),
    get({ path: '/a%2fb' }),
    'deny',
    'allow',
  ],
  [
    'a target in other digits',
    when('request.headers[:path]', { values: ['/%c3%a9*'] }),
    get({ path: '/%C3%A9?x' }),
    'deny',
    'allow',
  ],
  [
    'a namespace of a namesake',
    from({ namespaces: ['a'] }),
    peer('spiffe://f/ns/a/sa/x'),
    'deny',
    'deny',
  ],
  [
    'a namespace of another form',
    from({ namespaces: ['a'] }),
    peer('spiffe://td/x/ns/a/sa/x'),
    'deny',
    'deny',
  ],
  [
    'not a namespace, of a namesake',
    from({ notNamespaces: ['a'] }),
    peer('spiffe://f/ns/a/sa/x'),
    'deny',
    'allow',
  ],
  [
    'not a namespace, of an alias',
    from({ notNamespaces: ['a'] }),
    peer('spiffe://old/ns/a/sa/x'),
    'allow',
    'allow',
  ],
  [
    'not a service account, of another form',
    from({ notServiceAccounts: ['a/x'] }),
    peer(`${x}/y`),
    'deny',
    'allow',
  ],
  ['not a principal, on plaintext', from({ notPrincipals: ['td/a'] }), get(), 'deny', 'deny'],
  ['a host with its dot', to({ hosts: ['h.'] }), get({ host: 'h.' }), 'deny', 'deny'],
  ['not a host, with a port', to({ notHosts: ['h'] }), get({ host: 'h:80' }), 'allow', 'deny'],
  [
    'a list inside of a list',
    when('request.auth.claims[g]', { notValues: ['a'] }),
    token({ g: [['a']] }),
    'deny',
    'deny',
  ],
  [
    'what a filter left behind',
    when('experimental.envoy.filters.a[b]', { values: ['c'] }),
    get(),
    'deny',
    'allow',
  ],
  [
    'nothing of a fragment',
    when('request.headers[:path]', { values: ['*c'] }),
    get({ path: '/a#b?c' }),
    'reject',
    'allow',
  ],
  [
    'an absolute target',
    to({ hosts: ['deny'] }),
    get({ path: 'http://deny/a', host: 'h' }),
    'deny',
    'deny',
  ],
  ['nothing of a broken host', to({ hosts: ['h'] }), get({ path: 'x://a\nb' }), 'reject', 'reject'],
]

describe('a field of a rule', () => {
  it.each(allowing)('ALLOW: %s', (_why, rule, request, strict, istio) => {
    expect(decided([policy('ALLOW', rule)], request)).toEqual([strict, istio])
  })

  it.each(denying)('DENY: %s', (_why, rule, request, strict, istio) => {
    const documents = [policy('DENY', rule), policy('ALLOW', {}, 'rest')]
    expect(decided(documents, request)).toEqual([strict, istio])
  })

  it('claims that a RequestAuthentication says are lists are lists, of its issuer alone', () => {
    const documents = [
      authentication({ issuer: 'i', spaceDelimitedClaims: ['roles'] }),
      policy('ALLOW', when('request.auth.claims[roles]', { values: ['b'] })),
    ]
    const claims = { sub: 's', roles: ' a  b' }
    expect(decided(documents, token({ ...claims, iss: 'i' }))).toEqual(['allow', 'allow'])
    expect(decided(documents, token({ ...claims, iss: 'j' }))).toEqual(['deny', 'deny'])
  })
})

describe('a backend that ignores case', () => {
  const caseless = { backend: 'caseless' } as const

  it.each([
    ['DENY in any case', to({ paths: ['/Admin/*'] }), '/aDMIN/x', 'deny'],
    ['a template in any case', to({ paths: ['/Admin/{*}'] }), '/aDMIN/x', 'deny'],
    [
      'a target in any case',
      when('request.headers[:path]', { values: ['/Admin*'] }),
      '/aDMIN?x',
      'deny',
    ],
    [
      'DENY of all but what is named as it is named',
      to({ notPaths: ['/Public'] }),
      '/Public',
      'allow',
    ],
    ['and of it in another case', to({ notPaths: ['/Public'] }), '/public', 'deny'],
  ] as const)('%s', (_why, rule, path, strict) => {
    const documents = [policy('DENY', rule), policy('ALLOW', {}, 'rest')]
    expect(decided(documents, get({ path }), caseless)[0]).toBe(strict)
  })

  it('ALLOW means the case that it is written in', () => {
    const documents = [policy('ALLOW', to({ paths: ['/Public'] }))]
    expect(decided(documents, get({ path: '/Public' }), caseless)[0]).toBe('allow')
    expect(decided(documents, get({ path: '/public' }), caseless)[0]).toBe('deny')
  })
})

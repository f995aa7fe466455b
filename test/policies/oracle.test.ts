// The reference interpreter against the corpus, before anything is compared with it.
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { oracleDecide } from '../support/oracle/decide.ts'
import type { OracleRequest } from '../support/oracle/request.ts'

const corpus = join(import.meta.dirname, '../../../shared/corpus')

interface Case {
  readonly id: string
  readonly request: OracleRequest & { readonly raw?: string }
  readonly expect: Readonly<
    Partial<Record<'strict' | 'istio', { readonly decision: string | readonly string[] }>>
  >
  readonly why: string
}

/** The head of a raw request as the corpus' `http`; what follows the empty line is not looked at. */
function headOf(raw: string): NonNullable<OracleRequest['http']> {
  const [head = ''] = Buffer.from(raw, 'base64').toString('latin1').split('\r\n\r\n')
  const [first = '', ...lines] = head.split('\r\n')
  const [method = '', target = ''] = first.split(' ')
  const headers = lines.map((line) => [line.split(':', 1).join(), line.replace(/^[^:]*:/, '')])
  const others = headers.filter(([name]) => name?.toLowerCase() !== 'host')
  const [, host, path] = /^http:\/\/([^/?]*)(.*)$/.exec(target) ?? []
  if (method === 'CONNECT') return { method, host: target, headers: others }
  if (host !== undefined) return { method, host, path: path || '/', headers: others }
  return { method, path: target, headers }
}

const bytesOf = ({ raw = '' }: Case['request']) => Buffer.from(raw, 'base64').toString('latin1')
const carriesToken = ({ request }: Case) =>
  /^authorization:|[?&]access_token=/im.test(bytesOf(request))

const read = (folder: string, file: string) => readFileSync(join(folder, file), 'utf8')

const fixtures = globSync('*/cases.jsonl', { cwd: corpus }).map((file) => {
  const folder = join(corpus, dirname(file))
  const cases: Case[] = read(folder, 'cases.jsonl')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line))
  const documents = parseAllDocuments(read(folder, 'policies.yaml')).map((each) => each.toJS())
  return { name: basename(folder), cases, documents, mesh: parse(read(folder, 'mesh.yaml')) }
})

const judged = fixtures.flatMap(({ cases, ...fixture }) =>
  cases.flatMap((each) =>
    (['strict', 'istio'] as const)
      .filter((profile) => each.expect[profile] !== undefined)
      .map((profile) => ({ ...fixture, ...each, profile, withToken: carriesToken(each) })),
  ),
)
const run = judged.filter(({ withToken }) => !withToken)

describe('the reference interpreter', () => {
  it('decides every case of the corpus as the corpus says, tokens in requests excepted', ({
    skip,
  }) => {
    if (!existsSync(corpus)) {
      const reason = 'no corpus beside the repository (../shared/corpus)'
      console.info(`skipped: ${reason}`)
      return skip(reason)
    }
    const wrong = run.flatMap(({ name, id, documents, mesh, profile, request, why, ...each }) => {
      const { raw, ...rest } = request
      const asked = raw === undefined ? rest : { ...rest, http: headOf(raw) }
      const { decision } = oracleDecide(documents, mesh, profile, asked)
      const wanted = [each.expect[profile]?.decision ?? []].flat()
      return wanted.includes(decision) ? [] : [{ name, id, profile, decision, wanted, why }]
    })
    const tokens = judged.length - run.length
    console.info(
      `corpus: ${run.length} decisions compared, ${tokens} with a token in the request not`,
    )
    expect(wrong).toEqual([])
    expect(run.length).toBeGreaterThan(700)
  })
})

type Decided = 'allow' | 'deny' | 'reject'
type Sentence = readonly [
  why: string,
  rule: string,
  request: Partial<OracleRequest>,
  strict: Decided,
  istio: Decided,
]

const get = (change: NonNullable<OracleRequest['http']> = {}): Partial<OracleRequest> => ({
  http: { method: 'GET', host: 'h', path: '/', ...change },
})
const peer = (id: string): Partial<OracleRequest> => ({ ...get(), source: { principal: id } })
const token = (claims: Record<string, unknown>): Partial<OracleRequest> => ({
  ...get(),
  jwt: { claims },
})
const roles = (...values: string[]) => get({ headers: values.map((value) => ['x-role', value]) })
const x = 'spiffe://td/ns/a/sa/x'

const from = (fields: string) => `{from: [{source: {${fields}}}]}`
const to = (fields: string) => `{to: [{operation: {${fields}}}]}`
const when = (fields: string) => `{when: [{${fields}}]}`

const mesh = {
  trustDomain: 'td',
  trustDomainAliases: ['old', 'older'],
  defaultAction: 'deny',
} as const

const document = (action: string, rules: string, more = '', namespace = 'app') =>
  parse(
    `{kind: AuthorizationPolicy, metadata: {name: p, namespace: ${namespace}${more}}, spec: {action: ${action}, rules: [${rules}]}}`,
  )

const decideBoth = (documents: unknown[], request: Partial<OracleRequest>, change = {}) => {
  const asked = { ...request, destination: { namespace: 'app', ...request.destination } }
  const ask = (profile: 'strict' | 'istio') =>
    oracleDecide(documents, { ...mesh, ...change }, profile, asked).decision
  return [ask('strict'), ask('istio')]
}

const allowing: Sentence[] = [
  [
    'an alias',
    from('principals: [td/ns/a/sa/x]'),
    peer('spiffe://old/ns/a/sa/x'),
    'allow',
    'allow',
  ],
  ['cluster.local', from('principals: [cluster.local/ns/a/*]'), peer(x), 'allow', 'allow'],
  ['a suffix with aliases', from('principals: ["*er/ns/a/sa/x"]'), peer(x), 'allow', 'allow'],
  [
    'a foreign one',
    from('principals: [td/ns/a/sa/x]'),
    peer('spiffe://f/ns/a/sa/x'),
    'deny',
    'deny',
  ],
  ['a trust domain', from('trustDomains: ["f*"]'), peer('spiffe://foo/x'), 'allow', 'allow'],
  ['its alias', from('trustDomains: [older]'), peer(x), 'allow', 'allow'],
  [
    'a namespace with a dot',
    from('namespaces: [a.b]'),
    peer('spiffe://td/ns/aXb/sa/x'),
    'deny',
    'deny',
  ],
  [
    'a namespace with a star',
    from('namespaces: [a*]'),
    peer('spiffe://td/ns/abc/sa/x'),
    'allow',
    'allow',
  ],
  [
    'own service account',
    from('serviceAccounts: [x]'),
    peer('spiffe://td/ns/app/sa/x'),
    'allow',
    'allow',
  ],
  ['another one', from('serviceAccounts: [x]'), peer(x), 'deny', 'deny'],
  ['not a namespace', from('notNamespaces: [b]'), peer('spiffe://f/ns/a/sa/x'), 'deny', 'allow'],
  ['not on plaintext', from('notPrincipals: [f/x]'), get(), 'deny', 'allow'],
  [
    'all values',
    when('key: "request.headers[x-role]", values: [a, b]'),
    roles('a', 'c'),
    'deny',
    'allow',
  ],
  ['presence', when('key: "request.headers[X-Role]", values: ["*"]'), roles(''), 'allow', 'allow'],
  ['no header', when('key: "request.headers[x-role]", notValues: [a]'), get(), 'deny', 'allow'],
  [
    'a mapped block',
    from('ipBlocks: [10.0.0.0/8]'),
    { ...get(), source: { ip: '::ffff:10.1.2.3' } },
    'allow',
    'deny',
  ],
  [
    'a v6 block',
    from('ipBlocks: ["2001:db8::/33"]'),
    { ...get(), source: { ip: '2001:db8:7fff::1' } },
    'allow',
    'allow',
  ],
  ['a port', to('ports: ["8080"]'), { ...get(), destination: { port: 8080 } }, 'allow', 'allow'],
  ['a host with a port', to('hosts: [h]'), get({ host: 'H:80' }), 'allow', 'deny'],
  ['a host and its ports', to('hosts: ["h:*"]'), get({ host: 'h.:80' }), 'allow', 'deny'],
  ['a query', to('paths: [/a]'), get({ path: '/a?b' }), 'allow', 'allow'],
  ['a fragment', to('paths: [/a]'), get({ path: '/a?b#c' }), 'reject', 'allow'],
  ['a template', to('paths: ["/a/{*}/c"]'), get({ path: '/a//c' }), 'deny', 'deny'],
  [
    'iss and sub',
    from('requestPrincipals: ["*/s"]'),
    token({ iss: 'i/j', sub: 's' }),
    'allow',
    'allow',
  ],
  ['only iss', from('requestPrincipals: ["i*"]'), token({ iss: 'issuer' }), 'deny', 'deny'],
  ['no token', from('notRequestPrincipals: ["*"]'), get(), 'deny', 'allow'],
  [
    'a number',
    when('key: "request.auth.claims[n]", values: ["5"]'),
    token({ n: [5] }),
    'allow',
    'deny',
  ],
  [
    'a set',
    when('key: "request.auth.claims[g]", notValues: [b]'),
    token({ g: ['a', 'b'] }),
    'deny',
    'deny',
  ],
  [
    'a scope',
    when('key: "request.auth.claims[scope]", values: [b]'),
    token({ scope: 'a b' }),
    'allow',
    'allow',
  ],
  [
    'an audience',
    when('key: request.auth.audiences, values: [b]'),
    token({ aud: ['a', 'b'] }),
    'allow',
    'allow',
  ],
  [
    'what every object has',
    when('key: "request.auth.claims[constructor][name]", values: ["*"]'),
    token({}),
    'deny',
    'deny',
  ],
  [
    'HTTP on TCP',
    `{from: [{source: {notPrincipals: [z]}}], to: [{operation: {notPaths: [/]}}]}`,
    { source: { principal: x } },
    'deny',
    'deny',
  ],
  ['SNI', when('key: connection.sni, values: ["*.b"]'), { tls: { sni: 'a.b' } }, 'allow', 'allow'],
]

const denying: Sentence[] = [
  ['a mesh-wide namesake', from('namespaces: [a]'), peer('spiffe://f/ns/a/sa/x'), 'deny', 'deny'],
  ['a namesake of it', from('notNamespaces: [a]'), peer('spiffe://f/ns/a/sa/x'), 'deny', 'allow'],
  [
    'some value',
    when('key: "request.headers[x-role]", notValues: [a]'),
    roles('a', 'b'),
    'deny',
    'allow',
  ],
  ['as sent', to('paths: ["/a%2Fb"]'), get({ path: '/a%2Fb' }), 'deny', 'deny'],
  ['as decoded', to('paths: [/a/b]'), get({ path: '/x/..%2Fa%5cb' }), 'deny', 'allow'],
  ['not as decoded', to('notPaths: [/a/b]'), get({ path: '/a%2Fb' }), 'deny', 'deny'],
  ['a host with its dot', to('hosts: ["h."]'), get({ host: 'h.' }), 'deny', 'deny'],
  ['TCP', to('paths: [/admin]'), {}, 'deny', 'deny'],
  [
    'TCP from elsewhere',
    `{from: [{source: {principals: [td/y], notRequestPrincipals: ["*"]}}]}`,
    { source: { principal: x } },
    'allow',
    'allow',
  ],
  ['doubly encoded', to('paths: [/b]'), get({ path: '/%25%32%46a' }), 'reject', 'allow'],
  ['not UTF-8', to('paths: [/b]'), get({ path: '/%ed%a0%80' }), 'reject', 'allow'],
  ['a port that is none', to('paths: [/b]'), get({ host: 'h:65536' }), 'reject', 'allow'],
  ['no method', to('paths: [/b]'), get({ method: 'G T' }), 'reject', 'reject'],
]

describe('sentences of the texts that the corpus has no row for', () => {
  it.each(allowing)('ALLOW: %s', (_why, rule, request, strict, istio) => {
    expect(decideBoth([document('ALLOW', rule)], request)).toEqual([strict, istio])
  })

  it.each(denying)('DENY: %s', (_why, rule, request, strict, istio) => {
    const documents = [document('DENY', rule), document('ALLOW', '{}')]
    expect(decideBoth(documents, request)).toEqual([strict, istio])
  })

  it('the backend reads a forwarded path once more', () => {
    const under = (backend: string, path: string) =>
      decideBoth(
        [document('DENY', to('paths: [/private]')), document('ALLOW', '{}')],
        get({ path }),
        {
          backend,
        },
      )
    expect(under('servlet', '/public/;/..;x/private')).toEqual(['deny', 'allow'])
    expect(under('windows', '/public/..%20/private')).toEqual(['deny', 'allow'])
    expect(under('windows', '/private%20.')).toEqual(['deny', 'allow'])
    expect(under('caseless', '/PRIVATE')).toEqual(['deny', 'allow'])
  })

  it('a policy counts where it is in scope and enforced', () => {
    const dry = document('ALLOW', '{}', ', annotations: {"istio.io/dry-run": "T"}')
    expect(decideBoth([dry], get(), { defaultAction: 'allow' })).toEqual(['deny', 'allow'])
    const elsewhere = document('DENY', '{}', '', 'other')
    expect(decideBoth([elsewhere], get(), { defaultAction: 'allow' })).toEqual(['deny', 'allow'])
    const everywhere = document('DENY', '{}', '', 'istio-system')
    expect(decideBoth([everywhere, document('ALLOW', '{}')], get())).toEqual(['deny', 'deny'])
    expect(decideBoth([document('CUSTOM', '{}'), document('ALLOW', '{}')], get())).toEqual([
      'deny',
      'deny',
    ])
    expect(decideBoth([document('AUDIT', '{}')], get(), { defaultAction: 'allow' })).toEqual([
      'deny',
      'allow',
    ])
  })

  it('names each rule that matched, of the policies that decided', () => {
    const rules = `${to('methods: [GET]')}, ${to('methods: [PUT]')}, {}`
    const request = { ...get(), destination: { namespace: 'app' } }
    const answer = oracleDecide([document('ALLOW', rules)], mesh, 'strict', request)
    expect(answer).toEqual({ decision: 'allow', matching: ['app/p#0', 'app/p#2'] })
  })
})

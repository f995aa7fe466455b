// Small sets of policies out of few words, and requests that meet them often, in the form of the corpus.
import fc from 'fast-check'

const some = (...words: string[]) =>
  fc.uniqueArray(fc.constantFrom(...words), { minLength: 1, maxLength: 3 })

const words = {
  principals: some('td/ns/a/sa/x', 'td/ns/b/sa/y', 'td/ns/a/*', '*/sa/x', '*'),
  namespaces: some('a', 'b', 'a*'),
  trustDomains: some('td', 'other'),
  ipBlocks: some('10.0.0.0/8', '10.1.1.1', '192.0.2.0/24'),
  remoteIpBlocks: some('10.0.0.0/8', '10.1.1.1'),
  requestPrincipals: some('i/s', 'i/*', '*'),
}
const operations = {
  paths: some('/a', '/a/*', '*b', '/', '/a/{*}'),
  methods: some('GET', 'POST', 'P*'),
  hosts: some('h', '*.h', 'h:80'),
  ports: some('80', '8443'),
}
const keys = {
  'request.headers[x-role]': some('a', 'b', 'a*'),
  'request.headers[:method]': some('GET', 'POST'),
  'request.auth.claims[groups]': some('a', 'b', '*'),
  'request.auth.claims[realm][roles]': some('a', 'b'),
  'source.ip': words.ipBlocks,
  'source.principal': words.principals,
  'connection.sni': some('h', 'a.h'),
  'destination.port': operations.ports,
}

type Table = Readonly<Record<string, fc.Arbitrary<string[]>>>

const negative = (name: string) => `not${name.charAt(0).toUpperCase()}${name.slice(1)}`

/** One or two fields, some of them negated. */
function fieldsOf(table: Table): fc.Arbitrary<Record<string, string[]>> {
  const one = fc
    .record({ name: fc.constantFrom(...Object.keys(table)), isNegated: fc.nat(3) })
    .chain(({ name, isNegated }) => {
      const texts = table[name] ?? fc.constant([])
      return texts.map((it) => [isNegated === 0 ? negative(name) : name, it] as const)
    })
  return fc.array(one, { minLength: 1, maxLength: 2 }).map((all) => Object.fromEntries(all))
}

const condition = fc.constantFrom(...Object.keys(keys)).chain((key) =>
  fc.record({
    key: fc.constant(key),
    list: fc.constantFrom('values', 'values', 'notValues'),
    texts: Object.entries(keys).find(([name]) => name === key)?.[1] ?? fc.constant([]),
  }),
)
const from = fc.array(fc.record({ source: fieldsOf(words) }), { minLength: 1, maxLength: 2 })
const rule = fc.record(
  {
    from,
    to: fc.array(fc.record({ operation: fieldsOf(operations) }), { minLength: 1, maxLength: 2 }),
    when: fc.array(
      condition.map(({ key, list, texts }) => ({ key, [list]: texts })),
      { minLength: 1, maxLength: 2 },
    ),
    exceptFor: from,
  },
  { requiredKeys: [] },
)

export interface RandomDocument {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace: string }
  readonly spec: {
    readonly action: string
    readonly rules: object[]
    readonly [name: string]: unknown
  }
}

const policy = fc
  .record({
    isOwn: fc.boolean(),
    namespace: fc.constantFrom('shop', 'shop', 'shop', 'istio-system', 'else'),
    action: fc.constantFrom('ALLOW', 'ALLOW', 'DENY'),
    rules: fc.array(rule, { minLength: 1, maxLength: 3 }),
    spec: fc.constantFrom(
      {},
      {},
      {},
      { selector: { matchLabels: { app: 'web' } } },
      { expires: '2020-01-01' },
      { mode: 'shadow' },
    ),
  })
  .map(({ isOwn, namespace, action, rules, spec }) => {
    const plain = rules.map(({ exceptFor: _, ...it }) => it)
    return {
      apiVersion: isOwn ? 'castellan.dev/v1' : 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      namespace,
      spec: isOwn ? { action, ...spec, rules } : { action, rules: plain },
    }
  })

export const documents: fc.Arbitrary<RandomDocument[]> = fc
  .array(policy, { maxLength: 4 })
  .map((all) =>
    all.map(({ namespace, ...it }, i) => ({ ...it, metadata: { name: `p${i}`, namespace } })),
  )

const http = fc.record({
  method: fc.constantFrom('GET', 'POST', 'PUT'),
  path: fc.constantFrom('/', '/a', '/a/b', '/c/b?x', '/a%2Fb', '/a//b'),
  host: fc.constantFrom('h', 'a.h', 'h:80', 'other'),
  headers: fc.array(fc.tuple(fc.constant('x-role'), fc.constantFrom('a', 'b', 'ab')), {
    maxLength: 2,
  }),
})
const claims = fc.record(
  {
    iss: fc.constant('i'),
    sub: fc.constantFrom('s', 't'),
    groups: fc.constantFrom('a', ['a', 'b'], ['c', 'd']),
    realm: fc.record({ roles: fc.constantFrom('a', 'c') }),
  },
  { requiredKeys: ['iss', 'sub'] },
)

/** A line of the corpus. */
export const request = fc
  .record(
    {
      source: fc.record(
        {
          principal: fc.constantFrom(
            'spiffe://td/ns/a/sa/x',
            'spiffe://td/ns/b/sa/y',
            'spiffe://other/ns/a/sa/z',
          ),
          ip: fc.constantFrom('10.1.1.1', '192.0.2.7'),
        },
        { requiredKeys: [] },
      ),
      destination: fc.record({
        namespace: fc.constantFrom('shop', 'shop', 'default'),
        labels: fc.constantFrom({}, { app: 'web' }),
        port: fc.constantFrom(80, 8443),
      }),
      tls: fc.record({ sni: fc.constantFrom('h', 'b.h') }),
      http,
      jwt: fc.record({ claims }),
    },
    { requiredKeys: ['destination'] },
  )
  .map(({ jwt, ...it }) => (it.http === undefined || jwt === undefined ? it : { ...it, jwt }))

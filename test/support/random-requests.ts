// Requests that meet the random policies: mostly plain ones, and among them whatever has bypassed an engine
// of this kind. In the form of the corpus, so that the engine and the oracle are given the same.
import fc from 'fast-check'
import type { OracleRequest } from './oracle/decide.ts'
import { namespaces, type Subject } from './random-policies.ts'

/** Plain values, and odd ones now and then. */
const mostly = <T>(plain: readonly T[], odd: readonly T[], weight = 12): fc.Arbitrary<T> =>
  fc.oneof(
    { weight, arbitrary: fc.constantFrom(...plain) },
    { weight: 1, arbitrary: fc.constantFrom(...odd) },
  )

const principal = mostly(
  [
    'spiffe://td/ns/a/sa/x',
    'spiffe://td/ns/a/sa/x',
    'spiffe://td/ns/b/sa/y',
    'spiffe://td/ns/ab/sa/x.y',
    'spiffe://old/ns/a/sa/x',
    'spiffe://older/ns/b/sa/x',
    'spiffe://other/ns/a/sa/x',
    'spiffe://cluster.local/ns/a/sa/x',
    'spiffe://td/ns/app/sa/x',
  ],
  [
    'spiffe://td',
    'spiffe://td/x',
    'spiffe://td/x/ns/a/sa/x',
    'spiffe://td/ns/a/z/sa/x',
    'spiffe://td/ns/a/sa/x/more',
    'spiffe://td/ns/ns/sa/sa',
    'spiffe://td/ns/ns/a/sa/x',
    'spiffe://td/ns/aXb/sa/xXy',
    'spiffe://td/ns/a/sa/',
    'spiffe://TD/ns/a/sa/x',
    'spiffe://td//ns/a/sa/x',
    'spiffe://td/ns/a/sa/x?y',
    'spiffe://td/ns/../ns/a/sa/x',
    'SPIFFE://td/ns/a/sa/x',
    'foo',
    'td/ns/a/sa/x',
    '',
  ],
)

const address = mostly(
  ['10.1.1.1', '10.1.1.200', '192.0.2.7', '198.51.100.7'],
  ['::ffff:10.1.1.1', '::ffff:a01:101', '2001:db8::1', '::1', '2001:db8:0:0:0:0:0:1', '0.0.0.0'],
  3,
)

const piece = mostly(
  ['a', 'a', 'b', 'admin'],
  [
    ...[
      '',
      '.',
      '..',
      'A',
      'Admin',
      'ADMIN',
      '%61',
      '%41',
      '%2e',
      '%2E%2e',
      '%2e.',
      '..;x',
      '.;',
      'a;v=1',
    ],
    ...[
      'b,c',
      '..%20',
      'a.',
      'admin%20',
      'admin.%20.',
      '...',
      'a%2Fb',
      'a%2fb',
      '%2Fadmin',
      '..%2f',
      '%5c..',
    ],
    ...[
      '\\',
      '..\\',
      '%5Cadmin',
      'a%20b',
      '%252e',
      '%252F',
      '%25',
      '%25%32%66',
      '%2',
      '%zz',
      '%00',
      '%0a',
    ],
    ...[
      '%7f',
      '%c3%a9',
      '%C3%A9',
      '%c0%ae',
      '%ff',
      'é',
      '\xff',
      'a b',
      '*',
      '{*}',
      '{',
      '"',
      '^',
      '%2a',
      'a.b',
    ],
    ...['#f', '%23f', '%3f', '\t', 'a\nb'],
  ],
  6,
)

const path = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('/', '/a', '/a', '/a/b', '/admin', '/admin/a', '/a/') },
  {
    weight: 16,
    arbitrary: fc.array(piece, { minLength: 1, maxLength: 4 }).map((all) => `/${all.join('/')}`),
  },
  { weight: 1, arbitrary: fc.array(piece, { maxLength: 4 }).map((all) => all.join('')) },
)
const query = mostly(['', '', '', '?x'], ['?', '?x=/admin', '?/b', '?a#b', '#c?x', '?%2fb', '?x?y'])
const target = fc.tuple(path, query).map((parts) => parts.join(''))
const absoluteTarget = fc
  .tuple(fc.constantFrom('http://h', 'http://a.h:80', 'HTTP://H.', 'http://', 'x:/'), target)
  .map((parts) => parts.join(''))

const host = mostly(
  ['h', 'a.h', 'h:80'],
  [
    ...[
      'H',
      'h.',
      'h.:80',
      'h:',
      'H:8080',
      'A.H',
      '[::1]',
      '[::1]:80',
      '[::g]',
      '[::1',
      'h,h',
      'h, a.h',
    ],
    ...[
      'h:65536',
      'h:x',
      'u@h',
      '',
      '.',
      'h..',
      ' h',
      'h h',
      '*',
      'a_b',
      'é',
      '[::ffff:10.1.1.1]:80',
    ],
  ],
)

const method = mostly(
  ['GET', 'GET', 'POST'],
  ['PUT', 'get', 'GETX', 'G T', '', 'OPTIONS', 'GÉT', 'G,T'],
  24,
)

const header = fc.oneof(
  fc.tuple(
    mostly(['x-role'], ['X-Role', 'x-ROLE', 'x_role', 'x-rolé', 'x role']),
    mostly(['a', 'b', 'ab'], ['', ' a ', 'a,b', 'a, b', 'A', '\ta', 'a\x00', 'a\rb', 'a\x7f', 'é']),
  ),
  fc.tuple(
    fc.constantFrom('x-forwarded-for', 'X-Forwarded-For'),
    mostly(
      ['10.1.1.1', '192.0.2.7', '192.0.2.7, 10.1.1.1'],
      [
        'abc',
        '010.1.1.1',
        '',
        ',',
        '::ffff:10.1.1.1',
        ' 10.1.1.1 ',
        '10.1.1.1,',
        '[2001:db8::1]',
        '2001:db8::1',
      ],
    ),
  ),
  fc.tuple(
    fc.constantFrom('x-envoy-peer', 'X-Envoy-Peer', 'x-spiffe-peer-id'),
    fc.constantFrom('a', 'b'),
  ),
)
const headers = fc.array(header, { maxLength: 3 })

const http = fc.record(
  {
    method,
    path: fc.oneof({ weight: 12, arbitrary: target }, { weight: 1, arbitrary: absoluteTarget }),
    host,
    headers: fc.oneof(
      { weight: 24, arbitrary: headers },
      { weight: 1, arbitrary: host.map((it) => [['Host', it]]) },
    ),
  },
  { requiredKeys: ['method', 'path'] },
)

const h2Extras: readonly string[][] = [
  [':scheme', 'https'],
  [':protocol', 'websocket'],
  ['te', 'trailers'],
  ['te', 'gzip'],
  ['connection', 'close'],
  ['X-Role', 'a'],
  ['host', 'h'],
  ['x-role', 'a'],
]

const h2 = fc
  .record({
    method,
    path: target,
    host,
    headers,
    extra: mostly<readonly string[] | undefined>([undefined], h2Extras),
  })
  .chain((it) => {
    const pseudo = [
      [':method', it.method],
      [':scheme', 'https'],
      [':authority', it.host],
      [':path', it.path],
    ]
    const plain = it.headers.map(([name, value]) => [name.toLowerCase(), value])
    const missing = mostly(
      [pseudo],
      [pseudo.slice(1), pseudo.slice(0, 3), [...pseudo].reverse()],
      12,
    )
    return missing.map((fields) => [
      ...fields,
      ...plain,
      ...(it.extra === undefined ? [] : [it.extra]),
    ])
  })

const text = mostly<unknown>(
  ['a', 'b', 'ab'],
  ['', 'a,b', 5, true, null, ['a'], ['a', 'b'], [5], [['a']], {}],
)
const listed = mostly<unknown>(['a', 'a b', 'ab b'], ['', ' a', 'a  b', ['a b'], 5])
const claims = fc.record(
  {
    iss: mostly<unknown>(['i', 'i', 'https://i', 'x/i'], ['', 5]),
    sub: mostly<unknown>(['s', 's', 'sub', 'es'], ['', 5, 'a/s']),
    aud: text,
    azp: text,
    groups: text,
    scope: listed,
    list: listed,
    realm: fc.oneof(fc.record({ roles: text }), text),
  },
  { requiredKeys: [] },
)

const base = fc.record(
  {
    source: fc.record({ principal, ip: address }, { requiredKeys: [] }),
    destination: fc.record(
      {
        namespace: mostly<string>(['app'], [...namespaces, 'default']),
        labels: fc.constantFrom(
          { app: 'web' },
          { app: 'db', tier: '1' },
          { app: 'web', tier: '1' },
        ),
        ip: mostly(['198.51.100.20'], ['2001:db8::20', '::ffff:198.51.100.20']),
        port: fc.constantFrom(80, 8080, 443, 0),
      },
      { requiredKeys: ['namespace'] },
    ),
    remoteIp: address,
    tls: fc.record({ sni: fc.constantFrom('h', 'a.h', 'A.H', '') }, { requiredKeys: [] }),
  },
  { requiredKeys: ['destination'] },
)

const withoutRemote = <T extends { remoteIp?: unknown }>({ remoteIp: _, ...rest }: T) => rest

const plain = fc.tuple(base, http).map(([it, asked]) => ({ ...withoutRemote(it), http: asked }))
const withToken = fc
  .tuple(base, http, claims)
  .map(([it, asked, said]) => ({ ...withoutRemote(it), http: asked, jwt: { claims: said } }))
const overHttp2 = fc.tuple(base, h2).map(([it, fields]) => ({ ...withoutRemote(it), h2: fields }))

const requestOf = ({ tokens = 1, tcp = 1 } = {}): fc.Arbitrary<OracleRequest> =>
  fc.oneof(
    { weight: 4, arbitrary: plain },
    { weight: tokens, arbitrary: withToken },
    { weight: 2, arbitrary: overHttp2 },
    // a derived address outranks the header, and is seldom there
    { weight: tcp, arbitrary: base },
    { weight: 1, arbitrary: fc.tuple(base, http).map(([it, asked]) => ({ ...it, http: asked })) },
  )

export const request = requestOf({ tokens: 4 })

export const requestAbout: Readonly<Record<Subject, fc.Arbitrary<OracleRequest>>> = {
  addresses: requestOf({ tcp: 4 }),
  messages: requestOf(),
  identities: requestOf({ tcp: 2 }),
  tokens: requestOf({ tokens: 12 }),
  everything: request,
}

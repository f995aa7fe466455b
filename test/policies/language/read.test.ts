import { describe, expect, it } from 'vitest'
import { readPolicies } from '../../../policies/language/read.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { policyText } from '../../support/policy-text.ts'

const head = 'apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n'
const named = `${head}metadata: { name: a, namespace: n }\n`
const own = (text: string) => text.replace('security.istio.io/v1', 'castellan.dev/v1')

function problemsOf(...texts: readonly string[]): readonly string[] {
  try {
    readPolicies(texts.map((text, i) => ({ name: `${i}.yaml`, text })))
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    expect(error.code).toBe('ERR_POLICY')
    return error.fields.map(({ field, problem }) => `${field}: ${problem}`)
  }
  return []
}

const rulesProblems = (rules: string, action = 'ALLOW') => problemsOf(policyText(rules, { action }))
const withoutPlace = (place: string, problems: readonly string[]): string => {
  const [problem = '', ...more] = problems
  expect(more).toEqual([])
  expect(problem.slice(0, place.length)).toBe(place)
  return problem.slice(place.length)
}

/** The one problem of a policy with this operation, source or condition, without its place. */
const operationProblem = (operation: string) =>
  withoutPlace(
    '0.yaml:4 spec.rules[0].to[0].operation',
    rulesProblems(`[{ to: [{ operation: ${operation} }] }]`),
  )
const sourceProblem = (source: string) =>
  withoutPlace(
    '0.yaml:4 spec.rules[0].from[0].source',
    rulesProblems(`[{ from: [{ source: ${source} }] }]`),
  )
const whenProblem = (condition: string) =>
  withoutPlace('0.yaml:4 spec.rules[0].when[0]', rulesProblems(`[{ when: [${condition}] }]`))

const emptyList = 'a list that is given has to have an item'

describe('readPolicies', () => {
  it('gives the policies of all files, with the lines of their rules', () => {
    const text = `${named}spec:\n  rules:\n    - {}\n    - to:\n        - operation: { methods: [GET] }\n`
    const second = `${head}metadata: { name: b }\nspec: { action: DENY, rules: [{}] }\n`
    const files = [
      { name: 'one.yaml', text: `${text}---\n${second}` },
      { name: 'two.yaml', text: `${head}metadata: { name: c }\nspec: {}\n` },
    ]
    const { policies, ...others } = readPolicies(files)
    expect(others).toEqual({ authentications: [], peers: [], limits: [] })
    expect(policies).toMatchObject([
      {
        namespace: 'n',
        name: 'a',
        action: 'ALLOW',
        rules: [{}, { to: [{ operation: { methods: ['GET'] } }] }],
        file: 'one.yaml',
        line: 2,
        lines: [6, 7],
      },
      {
        namespace: 'default',
        name: 'b',
        action: 'DENY',
        rules: [{}],
        file: 'one.yaml',
        line: 11,
        lines: [13],
      },
      { namespace: 'default', name: 'c', action: 'ALLOW', rules: [], file: 'two.yaml', lines: [] },
    ])
  })

  it('takes a document without spec: an ALLOW that allows nothing', () => {
    expect(readPolicies([{ name: 'f', text: named }]).policies).toMatchObject([
      { action: 'ALLOW', rules: [] },
    ])
  })

  it('takes v1beta1, labels and annotations, and what a cluster adds', () => {
    const text =
      'apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\n' +
      'metadata: { name: a, labels: { x: y }, annotations: { note: z }, uid: u, generation: 3 }\n' +
      'spec: {}\nstatus: { conditions: [] }\n'
    expect(problemsOf(text)).toEqual([])
  })

  it('gives each kind of document', () => {
    const text = `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: jwt, namespace: app }
spec: { selector: { matchLabels: { app: web } }, jwtRules: [{ issuer: i, jwksUri: 'https://i/jwks' }] }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: app }
spec: { mtls: { mode: STRICT } }
---
apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: few, namespace: app }
spec: { limits: [{ requests: 5, per: 1m }] }
`
    expect(readPolicies([{ name: 'f', text }])).toMatchObject({
      policies: [],
      authentications: [{ name: 'jwt', selector: { app: 'web' }, rules: [{ issuer: 'i' }] }],
      peers: [{ name: 'strict', spec: { mtls: { mode: 'STRICT' } } }],
      limits: [{ name: 'few', spec: { limits: [{ requests: 5, per: 60_000 }] }, lines: [14] }],
    })
  })

  it.each([
    [
      'an unknown key',
      `${named}spec:\n  rules:\n    - {}\n  selectors: {}\n`,
      ['0.yaml:7 spec.selectors: unknown key'],
    ],
    [
      'an unknown key of a source',
      policyText('[{ from: [{ source: { namespace: [a], namespaces: [a] } }] }]'),
      ['0.yaml:4 spec.rules[0].from[0].source.namespace: unknown key'],
    ],
    [
      'a wrong type',
      policyText('{}'),
      ['0.yaml:4 spec.rules: Invalid input: expected array, received object'],
    ],
    [
      'an alias',
      `${named}spec:\n  rules:\n    - &r {}\n    - *r\n`,
      ['0.yaml:7: aliases (&name, *name) are not accepted'],
    ],
    [
      'a duplicate key',
      `${named}spec: {}\nspec: { rules: [{}] }\n`,
      ['0.yaml:5: Map keys must be unique'],
    ],
    [
      'another action',
      policyText('[{}]', { action: 'LOG' }),
      ['0.yaml:4 spec.action: Invalid option: expected one of "ALLOW"|"DENY"|"AUDIT"|"CUSTOM"'],
    ],
    [
      'another kind',
      policyText('[{}]').replace('AuthorizationPolicy', 'Policy'),
      [
        '0.yaml:2 kind: one of AuthorizationPolicy, RequestAuthentication, PeerAuthentication, RateLimit',
      ],
    ],
    [
      'another version',
      policyText('[{}]').replace('/v1', '/v2'),
      [
        '0.yaml:1 apiVersion: Invalid option: expected one of "security.istio.io/v1"|"security.istio.io/v1beta1"|"castellan.dev/v1"',
      ],
    ],
    [
      'a bad name',
      policyText('[{}]', { name: 'a/b' }),
      ['0.yaml:3 metadata.name: a name has a-z, 0-9, hyphens and dots'],
    ],
  ])('refuses %s', (_, text, problems) => {
    expect(problemsOf(text)).toEqual(problems)
  })

  it('refuses a second policy of one name, here and in another file', () => {
    const text = policyText('[{}]')
    expect(problemsOf(`${text}---\n${text}`)).toEqual([
      '0.yaml:8 metadata.name: a second AuthorizationPolicy shop/test (the first is in 0.yaml)',
    ])
    expect(problemsOf(text, text)).toEqual([
      '1.yaml:3 metadata.name: a second AuthorizationPolicy shop/test (the first is in 0.yaml)',
    ])
    expect(problemsOf(text, policyText('[{}]', { namespace: 'other' }))).toEqual([])
  })
})

describe('the list of what is refused (authorization.md §4.15)', () => {
  const spec = (text: string) => problemsOf(`${named}spec: ${text}\n`)

  it('1: more than one of selector, targetRef and targetRefs', () => {
    const problem = ['0.yaml:4 spec: give one of selector, targetRef and targetRefs']
    const ref = '{ kind: Service, name: a }'
    expect(spec(`{ selector: {}, targetRef: ${ref} }`)).toEqual(problem)
    expect(spec(`{ targetRef: ${ref}, targetRefs: [${ref}] }`)).toEqual(problem)
    expect(spec(`{ targetRefs: [${ref}] }`)).toEqual([])
  })

  it('2: a selector with an empty label key, or a star', () => {
    expect(spec('{ selector: { matchLabels: { "": a } } }')).toHaveLength(1)
    expect(spec('{ selector: { matchLabels: { "a*": b } } }')).toHaveLength(1)
    expect(spec('{ selector: { matchLabels: { a: "b*" } } }')).toEqual([
      '0.yaml:4 spec.selector.matchLabels.a: a label has no wildcards',
    ])
  })

  it.each([
    '{ kind: Service }',
    '{ name: a }',
    '{ kind: Pod, name: a }',
    '{ kind: Service, name: a, namespace: other }',
  ])('3: the target %s', (ref) => {
    expect(spec(`{ targetRef: ${ref} }`)).toHaveLength(1)
  })

  it('4: CUSTOM without rules or provider, a provider of another action', () => {
    expect(spec('{ action: CUSTOM, provider: { name: p } }')).toEqual([
      '0.yaml:4 spec.rules: a CUSTOM policy without rules does nothing',
    ])
    expect(spec('{ action: CUSTOM, rules: [{}] }')).toEqual([
      '0.yaml:4 spec.provider: a CUSTOM policy names its provider',
    ])
    expect(spec('{ action: DENY, provider: { name: p }, rules: [{}] }')).toEqual([
      '0.yaml:4 spec.provider: only a CUSTOM policy has a provider',
    ])
    expect(spec('{ action: CUSTOM, provider: { name: p }, rules: [{}] }')).toEqual([])
  })

  it('5: DENY without rules; an ALLOW without rules allows nothing', () => {
    expect(rulesProblems('[]', 'DENY')).toEqual([
      '0.yaml:4 spec.rules: a DENY policy without rules does nothing',
    ])
    expect(rulesProblems('[]')).toEqual([])
  })

  it('6: a null rule, an empty from or to, an empty source or operation', () => {
    expect(rulesProblems('[~]')).toHaveLength(1)
    expect(rulesProblems('[{ from: [], to: [] }]')).toEqual([
      `0.yaml:4 spec.rules[0].from: ${emptyList}`,
      `0.yaml:4 spec.rules[0].to: ${emptyList}`,
    ])
    expect(sourceProblem('{}')).toBe(': a source names at least one field')
    expect(operationProblem('{}')).toBe(': an operation names at least one field')
    expect(operationProblem('~')).toMatch(/expected object/)
  })

  it.each(['principals', 'namespaces', 'serviceAccounts', 'trustDomains', 'requestPrincipals'])(
    '7: an empty string in %s, and an empty list of them',
    (field) => {
      for (const name of [field, `not${field.charAt(0).toUpperCase()}${field.slice(1)}`]) {
        expect(sourceProblem(`{ ${name}: [""] }`)).toMatch(/^\.\w+\[0\]: an empty/)
        expect(sourceProblem(`{ ${name}: [] }`)).toBe(`.${name}: ${emptyList}`)
      }
    },
  )

  it.each(['paths', 'methods', 'hosts'])('7: an empty string in %s', (field) => {
    expect(operationProblem(`{ ${field}: [""] }`)).toBe(
      `.${field}[0]: an empty string matches nothing`,
    )
  })

  it.each(['10.0.0.0/33', 'x', '10.1', '010.1.1.1', '10.0.0.0/08', 'fe80::1%eth0', '::/129', ''])(
    '8: the block %j',
    (block) => {
      const problem = `${JSON.stringify(block)} is no IP address or CIDR, such as 10.0.0.0/8`
      expect(sourceProblem(`{ ipBlocks: ["${block}"] }`)).toBe(`.ipBlocks[0]: ${problem}`)
      expect(sourceProblem(`{ notRemoteIpBlocks: ["${block}"] }`)).toMatch(problem)
      for (const key of ['source.ip', 'remote.ip', 'destination.ip']) {
        expect(whenProblem(`{ key: ${key}, values: ["${block}"] }`)).toBe(`.values[0]: ${problem}`)
      }
    },
  )

  it.each(['http', '80-90', '*', '08443', '65536', '-1', '8 0', ''])('9: the port %j', (port) => {
    const problem = 'a port is a number from 0 to 65535, in quotes: no names, no ranges'
    expect(operationProblem(`{ ports: ["${port}"] }`)).toBe(`.ports[0]: ${problem}`)
    expect(whenProblem(`{ key: destination.port, notValues: ["${port}"] }`)).toBe(
      `.notValues[0]: ${problem}`,
    )
  })

  it('9: a port that is no string', () => {
    expect(operationProblem('{ ports: [80] }')).toMatch(/expected string, received number/)
  })

  it.each(['principals: [td/a]', 'notPrincipals: [td/a]', 'namespaces: [a]', 'notNamespaces: [a]'])(
    '10: service accounts beside %s in one source',
    (other) => {
      for (const accounts of ['serviceAccounts: [a]', 'notServiceAccounts: [a]']) {
        expect(sourceProblem(`{ ${accounts}, ${other} }`)).toBe(
          ': serviceAccounts do not stand beside principals or namespaces in one source',
        )
      }
    },
  )

  it.each(['a*', '*', 'a/b/c', '/a', 'a/', `a/${'b'.repeat(320)}`])(
    '11: the service account %.10s',
    (account) => {
      expect(sourceProblem(`{ serviceAccounts: ["${account}"] }`)).not.toBe('')
    },
  )

  it('11: more than 16 service accounts', () => {
    const accounts = (count: number) => Array.from({ length: count }, (_, i) => `a${i}`).join()
    expect(sourceProblem(`{ serviceAccounts: [${accounts(17)}] }`)).toMatch(/<=16 items/)
    expect(
      rulesProblems(`[{ from: [{ source: { serviceAccounts: [${accounts(16)}] } }] }]`),
    ).toEqual([])
  })

  it.each(['td/a', 'a*b', '*a*', '**', ''])('12: the trust domain %j', (name) => {
    expect(sourceProblem(`{ trustDomains: ["${name}"] }`)).not.toBe('')
    expect(whenProblem(`{ key: source.trustDomain, values: ["${name}"] }`)).not.toBe('')
  })

  it('13: a condition without key, or with neither values nor notValues', () => {
    expect(whenProblem('{ values: [a] }')).not.toBe('')
    expect(whenProblem('{ key: "", values: [a] }')).toBe('.key: a condition has a key')
    expect(whenProblem('{ key: source.principal }')).toBe(': a condition has values or notValues')
    expect(whenProblem('{ key: source.principal, values: [] }')).toBe(`.values: ${emptyList}`)
  })

  it.each([
    'a',
    'source.user',
    'source.labels',
    'destination.namespace',
    'destination.labels',
    'destination.name',
    'destination.user',
    'request.header[a]',
    'Source.ip',
    'source.ip ',
  ])('14: the key %j', (key) => {
    expect(whenProblem(`{ key: "${key}", values: [a] }`)).toMatch(/^\.key: (?:unknown key|the key)/)
  })

  it.each([
    'request.headers[]',
    'request.headers[a',
    'request.headers[a]b',
    'request.headersX[a]',
    'request.headers[a b]',
    // what no request has under this name
    'request.headers[:scheme]',
    'request.headers[a:b]',
  ])('15: the key %s', (key) => {
    expect(whenProblem(`{ key: "${key}", values: [a] }`)).toMatch(
      '.key: a header is written request.headers[NAME]',
    )
  })

  it.each(['request.headers[:method]', 'request.headers[:authority]', 'request.headers[X-Role]'])(
    '15: but not %s',
    (key) => {
      expect(rulesProblems(`[{ when: [{ key: "${key}", values: [a] }] }]`)).toEqual([])
    },
  )

  it.each([
    'request.auth.claims[]',
    'request.auth.claims[a',
    'request.auth.claims[a][]',
    'request.auth.claims',
    'request.auth.claims.a',
  ])('15: the key %s', (key) => {
    expect(whenProblem(`{ key: "${key}", values: [a] }`)).toBe(
      '.key: a claim is written request.auth.claims[NAME], a nested one request.auth.claims[A][B]',
    )
  })

  it.each(['request.auth.claims[a]b]', 'request.auth.claims[a[b]', 'request.auth.claims[a]]'])(
    '15, row 130: a claim name with a bracket, %s, is refused, never another claim',
    (key) => {
      expect(whenProblem(`{ key: "${key}", values: [a] }`)).toMatch(/^\.key: a claim is written/)
    },
  )

  it.each([
    ['/a/{**}/{*}', '{**} is the last operator of a template'],
    ['/{**}/{**}', '{**} is the last operator of a template'],
    ['/{x}', 'a template has {*} for one segment and {**} for any number of them'],
    ['/a{*}', '"a{*}": {*} or {**} is a whole segment, and no star stands beside it'],
    ['/{*}b/{*}', '"{*}b": {*} or {**} is a whole segment, and no star stands beside it'],
    ['/{*}/a*', '"a*": {*} or {**} is a whole segment, and no star stands beside it'],
    ['/{*}/*', '"*": {*} or {**} is a whole segment, and no star stands beside it'],
    ['/a//{*}', 'a path template has no empty segment'],
    ['/{*}/b?x', 'paths are compared without query and fragment: "/{*}/b?x" would never match'],
    ['/a{', 'a template has {*} for one segment and {**} for any number of them'],
    ['/a}b', 'a template has {*} for one segment and {**} for any number of them'],
    ['{*}/a', 'a path template starts with a slash'],
    ['/{*}/{***}', '"{***}": {*} or {**} is a whole segment, and no star stands beside it'],
  ])('16: the template %s', (path, problem) => {
    expect(operationProblem(`{ paths: ["${path}"] }`)).toContain(problem)
    expect(operationProblem(`{ notPaths: ["${path}"] }`)).toContain(problem)
  })

  const jwksProblems = (uri: string, version: string, field = 'jwksUri') =>
    problemsOf(`apiVersion: ${version}
kind: RequestAuthentication
metadata: { name: a, namespace: n }
spec:
  jwtRules:
    - issuer: i
      ${field}: "${uri}"
`)
  const [istio, ours] = ['security.istio.io/v1', 'castellan.dev/v1']

  it.each(['jwksUri', 'jwks_uri'])(
    'keys come over https, and from files where it is ours: %s',
    (field) => {
      for (const uri of ['https://i/jwks', 'https://i:8443/jwks?a=b']) {
        for (const version of [istio, ours]) expect(jwksProblems(uri, version, field)).toEqual([])
      }
      expect(jwksProblems('file:///etc/a%20b/jwks.json', ours, field)).toEqual([])
      expect(jwksProblems('file:///etc/jwks.json', istio, field)).toEqual([
        `0.yaml:7 spec.jwtRules[0].${field}: keys from a file only with apiVersion: castellan.dev/v1`,
      ])
    },
  )

  it.each([
    'file:jwks.json',
    'file://jwks.json',
    'file://./jwks.json',
    'file://localhost/etc/jwks.json',
    'file:///etc/../jwks.json',
    'file:///etc/jwks.json?a',
    'file:///etc/jwks.json#a',
    'file:///etc%2Fjwks.json',
    'file:///etc/jwks%00.json',
    'file:///etc/a b.json',
    'file:///etc/',
    'file:///',
    'file:',
  ])('a file of keys has one absolute path: %s has not', (uri) => {
    expect(jwksProblems(uri, ours)).toEqual([
      '0.yaml:7 spec.jwtRules[0].jwksUri: a file of keys is named by its absolute path, as file:///etc/keys/jwks.json',
    ])
  })

  it.each([
    ['http://i/jwks', 'keys are not taken over http://, where anybody could change them'],
    ['jwks.json', 'a JWKS address starts with https://, or with file:/// for a file'],
    ['/etc/jwks.json', 'a JWKS address starts with https://, or with file:/// for a file'],
    ['FILE:///etc/jwks.json', 'a JWKS address starts with https://, or with file:/// for a file'],
    ['https://a@i/jwks', 'a JWKS address has a host and no user'],
    ['https://i:http/jwks', 'a port is a number'],
  ])('no keys come from %s', (uri, problem) => {
    for (const version of [istio, ours]) {
      expect(jwksProblems(uri, version)).toEqual([`0.yaml:7 spec.jwtRules[0].jwksUri: ${problem}`])
    }
  })

  it.each(['principals', 'namespaces', 'serviceAccounts', 'trustDomains', 'requestPrincipals'])(
    '17: %s of a CUSTOM policy',
    (field) => {
      for (const name of [field, `not${field.charAt(0).toUpperCase()}${field.slice(1)}`]) {
        const rules = `[{ from: [{ source: { ${name}: [a] } }] }]`
        const text = policyText(rules, { action: 'CUSTOM, provider: { name: p }' })
        expect(problemsOf(text)).toEqual([
          `0.yaml:4 spec.rules[0].from[0].source.${name}: not with CUSTOM: identities are not known when an authorizer is asked`,
        ])
      }
    },
  )

  it.each([
    ['source.principal', false],
    ['source.namespace', false],
    ['source.serviceAccount', false],
    ['source.trustDomain', false],
    ['request.auth.principal', false],
    ['request.auth.audiences', false],
    ['request.auth.presenter', false],
    ['request.auth.claims[a]', false],
    ['request.headers[a]', true],
    ['connection.sni', true],
  ])('17: the key %s of a CUSTOM policy is fine: %s', (key, fine) => {
    const rules = `[{ when: [{ key: "${key}", values: [a] }] }]`
    const text = policyText(rules, { action: 'CUSTOM, provider: { name: p }' })
    expect(problemsOf(text)).toHaveLength(fine ? 0 : 1)
  })

  it('18: a dry run that is no boolean, or of AUDIT or CUSTOM', () => {
    const dry = (value: string, rest = 'spec: {}') =>
      problemsOf(
        `${head}metadata: { name: a, annotations: { istio.io/dry-run: "${value}" } }\n${rest}\n`,
      )
    for (const value of ['true', 'T', '1', 'false', 'F', '0', 'True', 'FALSE']) {
      expect(dry(value)).toEqual([])
    }
    for (const value of ['yes', '', 'tRUE', 'on', '2']) {
      expect(dry(value)).toEqual([
        `0.yaml:3 metadata.annotations.istio.io/dry-run: ${JSON.stringify(value)} is no boolean: write "true" or "false"`,
      ])
    }
    expect(dry('true', 'spec: { action: AUDIT, rules: [{}] }')).toEqual([
      '0.yaml:3 metadata.annotations.istio.io/dry-run: only ALLOW and DENY policies can be tried dry',
    ])
  })
})

describe('what Istio takes and reads as something else is refused', () => {
  const star = (text: string) =>
    `a star inside "${text}" would be taken literally; a star stands at the start, at the end, or alone`

  it.each([
    ['{ methods: [get] }', 'methods are compared as sent: "get" would never match, write GET'],
    ['{ methods: ["G T"] }', '"G T" has characters that no method has'],
    ['{ paths: [/a, "/a*b"] }', star('/a*b')],
    ['{ paths: ["*a*"] }', star('*a*')],
    ['{ paths: [a] }', 'a path pattern starts with a slash or a star'],
    [
      '{ paths: ["/a?b"] }',
      'paths are compared without query and fragment: "/a?b" would never match',
    ],
    [
      '{ paths: ["/a#b"] }',
      'paths are compared without query and fragment: "/a#b" would never match',
    ],
    ['{ hosts: ["a*b"] }', star('a*b')],
    ['{ hosts: ["http://a"] }', '"http://a" is no host: no slash, comma or space'],
    ['{ notHosts: ["a,b"] }', '"a,b" is no host: no slash, comma or space'],
  ])('the operation %s', (operation, problem) => {
    expect(operationProblem(operation)).toMatch(/^\.\w+\[\d\]: /)
    expect(operationProblem(operation)).toContain(problem)
  })

  it.each([
    ['{ principals: ["td/*/sa/a"] }', star('td/*/sa/a')],
    [
      '{ principals: ["https://td/a"] }',
      '"https://td/a" is no SPIFFE ID: a principal is trust-domain/path',
    ],
    ['{ namespaces: ["a/b"] }', '"a/b" is no namespace: it has a slash'],
    ['{ requestPrincipals: ["a/"] }', '"a/" lacks the issuer or the subject'],
    ['{ requestPrincipals: ["/a"] }', '"/a" lacks the issuer or the subject'],
    ['{ requestPrincipals: ["a*b"] }', star('a*b')],
    // Istio looks at the ends of the whole text, and takes the other star literally
  ])('the source %s', (source, problem) => {
    expect(sourceProblem(source)).toContain(problem)
  })

  it.each(['*', '*/b', 'https://i/*', 'https://i/b*', '*i/b', 'i*', '*b', 'i'])(
    'but not the request principal %s',
    (text) => {
      expect(rulesProblems(`[{ from: [{ source: { requestPrincipals: ["${text}"] } }] }]`)).toEqual(
        [],
      )
    },
  )

  it.each([
    ['from: [{ source: { principals: [spiffe://td/a] } }]', 'from[0].source.principals[0]'],
    ['from: [{ source: { notPrincipals: [spiffe://td/a] } }]', 'from[0].source.notPrincipals[0]'],
    ['when: [{ key: source.principal, values: [spiffe://td/a] }]', 'when[0].values[0]'],
    ['when: [{ key: source.principal, notValues: [b, spiffe://td/a] }]', 'when[0].notValues[1]'],
  ])('spiffe:// in %s, but in a document of our own', (rule, place) => {
    const text = policyText(`[{ ${rule} }]`)
    expect(problemsOf(text)).toEqual([
      `0.yaml:4 spec.rules[0].${place}: a principal is written without spiffe://, as td/a; whole SPIFFE IDs only with apiVersion: castellan.dev/v1`,
    ])
    expect(problemsOf(own(text))).toEqual([])
  })
})

describe('castellan.dev/v1', () => {
  it.each([
    ['targets: [td/a]', 'spec.targets'],
    ['mode: shadow', 'spec.mode'],
    ['expires: 2030-01-01', 'spec.expires'],
    ['rules: [{ condition: "true" }]', 'spec.rules[0].condition'],
    ['rules: [{ exceptFor: [{ source: { namespaces: [a] } }] }]', 'spec.rules[0].exceptFor'],
  ])('%s needs it', (field, place) => {
    const text = `${named}spec: { ${field} }\n`
    expect(problemsOf(text)).toEqual([`0.yaml:4 ${place}: only with apiVersion: castellan.dev/v1`])
    expect(problemsOf(own(text))).toEqual([])
  })

  it('gives what the superset says', () => {
    const text = own(
      `${named}spec: { targets: [spiffe://td/a, "td/b*"], mode: shadow, expires: 2030-01-01 }\n`,
    )
    expect(readPolicies([{ name: 'f', text }]).policies).toMatchObject([
      {
        targets: [
          { kind: 'exact', text: 'td/a' },
          { kind: 'prefix', text: 'td/b' },
        ],
        isShadow: true,
        expires: Date.UTC(2030, 0, 1),
        isIstio: false,
      },
    ])
  })

  it.each([
    ['expires: soon', 'spec.expires: a date is written 2027-01-31 or as RFC 3339'],
    ['rules: [{ condition: "1 +" }]', 'spec.rules[0].condition: no CEL expression'],
    ['rules: [{ condition: "nobody" }]', 'spec.rules[0].condition: nothing is named nobody'],
    ['targets: []', `spec.targets: ${emptyList}`],
  ])('refuses %s', (field, problem) => {
    const [first = '', ...more] = problemsOf(own(`${named}spec: { ${field} }\n`))
    expect(first).toContain(`0.yaml:4 ${problem}`)
    expect(more).toEqual([])
  })
})

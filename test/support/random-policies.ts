// Policies in the whole of Istio's language, out of few words so that requests meet them often. Documents are
// plain values, as YAML would give them; each is one that the reader takes.
import fc from 'fast-check'
import type { OracleMesh } from './oracle/decide.ts'

export const namespaces = ['app', 'root', 'b'] as const

const wordsOf = (...words: string[]) =>
  fc.uniqueArray(fc.constantFrom(...words), { minLength: 1, maxLength: 3 })

const principals = wordsOf(
  'td/ns/a/sa/x',
  'td/ns/b/sa/y',
  'old/ns/a/sa/x',
  'other/ns/a/sa/x',
  'cluster.local/ns/a/sa/x',
  'td/ns/a/*',
  'td/*',
  't*',
  '*/sa/x',
  '*er/ns/a/sa/x',
  '*d/ns/a/sa/x',
  '*/ns/a/sa/x',
  '*',
  'td',
  'foo',
)
const sourceNamespaces = wordsOf('a', 'b', 'ab', 'a*', '*', '*b', 'a.b', 'ns', 'a*b', 'z')
const serviceAccounts = wordsOf('x', 'a/x', 'ab/x.y', 'b/y', 'ns/sa', 'app', 'aXb/x')
const trustDomains = wordsOf('td', 'old', 'older', 'other', 'cluster.local', '*', 'o*', '*er', '*d')
const blocks = wordsOf(
  '10.0.0.0/8',
  '10.1.1.1',
  '10.1.1.129/25',
  '0.0.0.0/0',
  '192.0.2.0/24',
  '198.51.100.7/32',
  '::ffff:10.0.0.0/104',
  '::ffff:10.1.1.1',
  '2001:db8::/32',
  '2001:DB8::1',
  '::/0',
)
const hosts = wordsOf(
  'h',
  'H.',
  'a.h',
  'h:80',
  'h:*',
  '*.h',
  'a*',
  '*',
  '[::1]',
  '[::1]:80',
  '*:80',
)
const ports = wordsOf('80', '8080', '0')
const methods = wordsOf('GET', 'POST', 'P*', '*T', '*', 'GETX')
const paths = wordsOf(
  '/a',
  '/a/',
  '/a/*',
  '/a*',
  '/A',
  '*b',
  '/',
  '*',
  '/a/b',
  '/a%2Fb',
  '/a%2fb',
  '/%c3%a9',
  '/%C3%A9/*',
  '/a.b',
  '/admin',
  '/admin/*',
  '/Admin/*',
  '*/admin',
  '/{*}',
  '/{**}',
  '/a/{*}',
  '/a/{**}',
  '/{*}/b',
  '/a/{**}/b',
  '/A/{*}/b/{**}',
  '/a/{*}/{*}',
)
const requestPrincipals = wordsOf(
  '*',
  'i/s',
  'i/*',
  'i/s*',
  '*/s',
  '*i/s',
  'i*',
  '*s',
  'i',
  'https://i/s',
)
const values = wordsOf('a', 'b', 'a*', '*b', '*', 'a,b', '5', 'true', 'A')
const destinations = wordsOf(
  '198.51.100.20',
  '198.51.100.0/24',
  '::ffff:198.51.100.20',
  '2001:db8::/64',
)

type Words = fc.Arbitrary<string[]>
type Table = Readonly<Record<string, Words>>
type Keys = readonly (readonly [key: string, words: Words])[]

/** What the rules of a set are about, so that several are about the same. */
interface Vocabulary {
  readonly sources: readonly Table[]
  readonly operations: readonly Table[]
  readonly keys: Keys
}

const addresses: Vocabulary = {
  sources: [{ ipBlocks: blocks, remoteIpBlocks: blocks }],
  operations: [{ ports }],
  keys: [
    ['source.ip', blocks],
    ['remote.ip', blocks],
    ['destination.ip', destinations],
    ['destination.port', ports],
    ['connection.sni', wordsOf('a.h', 'A.h', '*.h', 'h', '*')],
  ],
}

const messages: Vocabulary = {
  sources: addresses.sources,
  operations: [{ paths, methods }, { paths }, { hosts }, { hosts, ports, methods, paths }],
  keys: [
    ['request.headers[x-role]', values],
    ['request.headers[X-Role]', values],
    ['request.headers[x-envoy-peer]', values],
    ['request.headers[host]', hosts],
    ['request.headers[:authority]', hosts],
    ['request.headers[:method]', methods],
    ['request.headers[:path]', wordsOf('/a', '/a?x', '/a*', '/A*', '*b', '*', '/a%2fb', '/admin')],
    ['experimental.envoy.filters.a.b[c]', values],
  ],
}

const identities: Vocabulary = {
  sources: [
    { principals, namespaces: sourceNamespaces, trustDomains },
    // these stand beside neither principals nor namespaces
    { serviceAccounts, trustDomains },
  ],
  operations: [{ methods }],
  keys: [
    ['source.principal', principals],
    ['source.namespace', sourceNamespaces],
    ['source.serviceAccount', serviceAccounts],
    ['source.trustDomain', trustDomains],
  ],
}

const tokens: Vocabulary = {
  sources: [{ requestPrincipals }],
  operations: [{ methods }],
  keys: [
    ['request.auth.principal', requestPrincipals],
    ['request.auth.audiences', values],
    ['request.auth.presenter', values],
    ['request.auth.claims[groups]', values],
    ['request.auth.claims[scope]', values],
    ['request.auth.claims[list]', values],
    ['request.auth.claims[realm][roles]', values],
  ],
}

/** Without identities and tokens: what a CUSTOM rule may be about. */
const plain: Vocabulary = {
  sources: addresses.sources,
  operations: [...messages.operations, ...addresses.operations],
  keys: [...addresses.keys, ...messages.keys],
}

const everything: Vocabulary = {
  sources: [
    { ...identities.sources[0], requestPrincipals, ...addresses.sources[0] },
    { ...identities.sources[1], requestPrincipals, ...addresses.sources[0] },
  ],
  operations: plain.operations,
  keys: [...plain.keys, ...identities.keys, ...tokens.keys],
}

/** Fields of a source or operation with their negations; the positive ones are what most rules are made of. */
function fieldsOf(table: Table) {
  const names = Object.entries(table)
  const negated = names.map(([name, words]): [string, Words] => [
    `not${name.charAt(0).toUpperCase()}${name.slice(1)}`,
    words,
  ])
  const one = (all: readonly (readonly [string, Words])[]) =>
    fc.constantFrom(...all).chain(([name, words]) => words.map((texts) => [name, texts]))
  const field = fc.oneof(
    { weight: 2, arbitrary: one(names) },
    { weight: 1, arbitrary: one(negated) },
  )
  return fc
    .array(field, { minLength: 1, maxLength: 2 })
    .map((fields): Record<string, string[]> => Object.fromEntries(fields))
}

const conditionOf = (keys: Keys) =>
  fc.constantFrom(...keys).chain(([key, words]) =>
    fc.oneof(
      { weight: 3, arbitrary: fc.record({ key: fc.constant(key), values: words }) },
      { weight: 1, arbitrary: fc.record({ key: fc.constant(key), notValues: words }) },
      {
        weight: 1,
        arbitrary: fc.record({ key: fc.constant(key), values: words, notValues: words }),
      },
    ),
  )

function ruleOf({ sources, operations, keys }: Vocabulary): fc.Arbitrary<object> {
  const list = <T>(arbitrary: fc.Arbitrary<T>) =>
    fc.array(arbitrary, { minLength: 1, maxLength: 2 })
  const from = list(fc.record({ source: fc.oneof(...sources.map(fieldsOf)) }))
  const to = list(fc.record({ operation: fc.oneof(...operations.map(fieldsOf)) }))
  const when = list(conditionOf(keys))
  // most are about one thing, for what is about several seldom matches
  return fc.oneof(
    { weight: 6, arbitrary: fc.record({ from }) },
    { weight: 6, arbitrary: fc.record({ to }) },
    { weight: 6, arbitrary: fc.record({ when }) },
    { weight: 2, arbitrary: fc.record({ from, to }) },
    { weight: 1, arbitrary: fc.record({ to, when }) },
    { weight: 1, arbitrary: fc.record({ from, to, when }) },
    { weight: 1, arbitrary: fc.constant({}) },
  )
}

const labels = fc.constantFrom({ app: 'web' }, { app: 'db' }, { app: 'web', tier: '1' })
const place = fc.oneof(
  { weight: 6, arbitrary: fc.constant({}) },
  { weight: 2, arbitrary: labels.map((matchLabels) => ({ selector: { matchLabels } })) },
  { weight: 1, arbitrary: fc.constant({ targetRefs: [{ kind: 'Service', name: 'a' }] }) },
)

export interface RandomDocument {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly annotations?: object
  }
  readonly spec: object
}

const somewhere = fc.constantFrom(...namespaces, 'app', 'app')
const sometimesDry = fc.option(fc.constantFrom('true', 'false', 'T', '0'), {
  nil: undefined,
  freq: 8,
})
const neverDry = fc.constant(undefined)

/** `action` is what stands in spec beside the rules. */
function policyOf(
  action: { readonly action: string; readonly provider?: object },
  rules: fc.Arbitrary<readonly object[]>,
  dryRun: fc.Arbitrary<string | undefined> = neverDry,
): fc.Arbitrary<RandomDocument> {
  return fc
    .record({ namespace: somewhere, place, rules, dryRun })
    .map(({ namespace, place: where, rules: list, dryRun: dry }) => ({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: {
        name: 'p',
        namespace,
        ...(dry === undefined ? {} : { annotations: { 'istio.io/dry-run': dry } }),
      },
      spec: { ...action, ...where, rules: list },
    }))
}

const few = { minLength: 1, maxLength: 3 }

export const allowPolicy = (its: Vocabulary) =>
  policyOf({ action: 'ALLOW' }, fc.array(ruleOf(its), { maxLength: 4 }), sometimesDry)
export const denyPolicy = (its: Vocabulary) =>
  policyOf({ action: 'DENY' }, fc.array(ruleOf(its), few), sometimesDry)
const auditPolicy = (its: Vocabulary) => policyOf({ action: 'AUDIT' }, fc.array(ruleOf(its), few))
const customPolicy = policyOf(
  { action: 'CUSTOM', provider: { name: 'ask' } },
  fc.array(ruleOf(plain), few),
)

/** So many rules that they are looked up in tables. */
const longPolicy = (its: Vocabulary) =>
  fc.oneof(
    ...['ALLOW', 'DENY'].map((action) =>
      policyOf({ action }, fc.array(ruleOf(its), { minLength: 10, maxLength: 30 })),
    ),
  )

const authentication: fc.Arbitrary<RandomDocument> = fc
  .record({ namespace: somewhere, issuer: fc.constantFrom('i', 'https://i') })
  .map(({ namespace, issuer }) => ({
    apiVersion: 'security.istio.io/v1',
    kind: 'RequestAuthentication',
    metadata: { name: 'p', namespace },
    spec: { jwtRules: [{ issuer, spaceDelimitedClaims: ['list'] }] },
  }))

const anyDocument = (its: Vocabulary) =>
  fc.oneof(
    { weight: 8, arbitrary: allowPolicy(its) },
    { weight: 4, arbitrary: denyPolicy(its) },
    { weight: 1, arbitrary: customPolicy },
    { weight: 1, arbitrary: auditPolicy(its) },
    { weight: 2, arbitrary: authentication },
  )

/** Each under a name of its own. */
export const numbered = (list: readonly RandomDocument[]): RandomDocument[] =>
  list.map((it, i) => ({ ...it, metadata: { ...it.metadata, name: `p${i}` } }))

const documentsOf = (its: Vocabulary) =>
  fc
    .tuple(
      fc.option(longPolicy(its), { nil: undefined, freq: 1 }),
      fc.array(anyDocument(its), { minLength: 1, maxLength: 4 }),
    )
    .map(([long, others]) => numbered(long === undefined ? others : [long, ...others]))

export const subjects = ['addresses', 'messages', 'identities', 'tokens', 'everything'] as const
export type Subject = (typeof subjects)[number]
export const vocabularies: Readonly<Record<Subject, Vocabulary>> = {
  addresses,
  messages,
  identities,
  tokens,
  everything,
}

export const documentsAbout: Readonly<Record<Subject, fc.Arbitrary<RandomDocument[]>>> = {
  addresses: documentsOf(addresses),
  messages: documentsOf(messages),
  identities: documentsOf(identities),
  tokens: documentsOf(tokens),
  everything: documentsOf(everything),
}

export const documents = fc.oneof(...subjects.map((subject) => documentsAbout[subject]))

/** JSON is YAML in flow style. */
export const textOf = (list: readonly unknown[]): string =>
  list.map((document) => `${JSON.stringify(document)}\n`).join('---\n')

/** A mesh file, the profile apart. */
export const mesh: fc.Arbitrary<OracleMesh> = fc
  .record({
    trustDomainAliases: fc.subarray(['old', 'older']),
    rootNamespace: fc.constantFrom('root', 'root', 'istio-system'),
    defaultAction: fc.constantFrom('allow', 'deny'),
    pathNormalization: fc.constantFrom('none', 'base', 'merge-slashes', 'decode-and-merge-slashes'),
    backend: fc.constantFrom('rfc3986', 'servlet', 'windows', 'caseless'),
    trustedHops: fc.constantFrom(0, 1, 2),
    trustedProxies: fc.subarray(['10.0.0.0/8', '::ffff:192.0.2.0/120', '2001:db8::/32']),
  })
  .map((it) => ({ trustDomain: 'td', ...it }))

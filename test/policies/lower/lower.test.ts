import { describe, expect, it } from 'vitest'
import { filterJson, rbacFilters } from '../../../agent/proxies/envoy/rbac.ts'
import { destinationOf } from '../../../policies/attributes/request.ts'
import { type CompileOptions, compile } from '../../../policies/compile.ts'
import { defaultMesh, type Mesh } from '../../../policies/language/mesh.ts'
import { readPolicies } from '../../../policies/language/read.ts'
import { type Lowered, lower } from '../../../policies/lower/lower.ts'
import type { Tree } from '../../../policies/lower/tree.ts'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { type EnvoyRequest, rbacVerdict } from '../../support/envoy-rbac.ts'
import { asEnvoySees } from '../../support/envoy-request.ts'
import { plainSent } from '../../support/lowered-field.ts'
import { treeVerdict } from '../../support/lowered-verdict.ts'

const web = destinationOf(parseSpiffeId('spiffe://td/ns/shop/sa/web'), { labels: { app: 'web' } })
const mesh: Mesh = { ...defaultMesh, trustDomain: 'td' }

function setOf(documents: readonly object[], options: CompileOptions = {}) {
  const text = documents.map((it) => JSON.stringify(it)).join('\n---\n')
  return compile(readPolicies([{ name: 'p.yaml', text }]), { mesh, ...options })
}

const policy = (name: string, spec: object, more: object = {}) => ({
  apiVersion: 'castellan.dev/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name, namespace: 'shop', ...more },
  spec,
})
const from = (source: object) => ({ from: [{ source }] })
const to = (operation: object) => ({ to: [{ operation }] })
const when = (key: string, ...values: string[]) => ({ when: [{ key, values }] })

interface Both extends Lowered {
  readonly plaintext?: Lowered
}

/** For connections of either kind. */
function lowered(documents: readonly object[], options?: CompileOptions): Both {
  const set = setOf(documents, options)
  return { ...lower(set, web), plaintext: lower(set, web, { connection: 'plaintext' }) }
}

const seenAs = (target: string, uri?: string): EnvoyRequest => {
  const sent = { ...plainSent, target, uris: uri === undefined ? [] : [uri] }
  const seen = asEnvoySees(sent, { mergesSlashes: true, trustedHops: 0 })
  if (seen === undefined) throw new Error(`Envoy refuses ${target}`)
  return seen
}

function decides(both: Both, seen: EnvoyRequest): string {
  const it = seen.uris.length === 0 ? (both.plaintext ?? both) : both
  for (const tree of [it.guard, it.deny]) {
    const { isAllowed, name } = treeVerdict(tree, seen)
    if (!isAllowed) return name
  }
  const { isAllowed, name } = treeVerdict(it.allow, seen)
  return isAllowed ? `+${name}` : name
}

const refusedOf = (documents: readonly object[], options?: CompileOptions) => {
  const { refused, needsAuthz } = lowered(documents, options)
  return {
    needsAuthz,
    refused: refused.map(({ policy: name, rule, place, why }) => ({ name, rule, place, why })),
  }
}

const authentication = {
  apiVersion: 'security.istio.io/v1',
  kind: 'RequestAuthentication',
  metadata: { name: 'tokens', namespace: 'shop' },
  spec: { jwtRules: [{ issuer: 'i' }] },
}

describe('what is not lowered', () => {
  it.each([
    ['CEL', { condition: 'request.method == "GET"' }, 'condition', /CEL/],
    ['a claim', when('request.auth.claims[a]', 'b'), 'when[0].values', /token/],
    ['an audience', when('request.auth.audiences', 'b'), 'when[0].values', /token/],
    [
      'a token’s principal',
      from({ requestPrincipals: ['*'] }),
      'from[0].source.requestPrincipals',
      /token/,
    ],
    [
      'its negation',
      from({ notRequestPrincipals: ['*'] }),
      'from[0].source.notRequestPrincipals',
      /token/,
    ],
    [
      'the target with its query',
      when('request.headers[:path]', '/a?b'),
      'when[0].values',
      /query/,
    ],
    [
      'a header that Envoy changes',
      when('request.headers[cookie]', 'a=b'),
      'when[0].values',
      /Envoy changes cookie/,
    ],
  ])('is named, of a DENY and of an ALLOW: %s', (_, rule, place, why) => {
    for (const action of ['DENY', 'ALLOW']) {
      const { refused, needsAuthz } = refusedOf([policy('p', { action, rules: [{}, rule] })])
      expect(refused).toEqual([{ name: 'shop/p', rule: 1, place, why: expect.stringMatching(why) }])
      expect(needsAuthz).toBe(true)
    }
  })

  it.each([
    [
      'CUSTOM',
      policy('p', { action: 'CUSTOM', provider: { name: 'x' }, rules: [{}] }),
      'shop/p',
      true,
    ],
    ['tokens that have to hold', authentication, 'RequestAuthentication shop/tokens', true],
    [
      'limits',
      { ...policy('p', { limits: [{ requests: 1, per: '1s' }] }), kind: 'RateLimit' },
      'RateLimit shop/p',
      true,
    ],
    ['AUDIT', policy('p', { action: 'AUDIT', rules: [{}] }), 'shop/p', false],
    ['shadow', policy('p', { action: 'DENY', mode: 'shadow', rules: [{}] }), 'shop/p', false],
    [
      'an ALLOW by metadata',
      policy('p', { rules: [when('experimental.envoy.filters.a[b]', 'c')] }),
      'shop/p',
      false,
    ],
  ])('is named by its document: %s', (_, document, name, needsAuthz) => {
    expect(refusedOf([document])).toMatchObject({ needsAuthz, refused: [{ name }] })
  })

  it.each([
    ['servlet', 'DENY', true],
    ['servlet', 'ALLOW', true],
    ['windows', 'DENY', true],
    ['caseless', 'DENY', true],
    ['caseless', 'ALLOW', false],
    ['rfc3986', 'DENY', false],
  ] as const)('paths before a %s backend, of %s: %s', (backend, action, isRefused) => {
    const options = { mesh: { ...mesh, backend } }
    const { refused } = refusedOf(
      [policy('p', { action, rules: [to({ paths: ['/a'] })] })],
      options,
    )
    expect(refused.length > 0).toBe(isRefused)
    const others = [policy('p', { action, rules: [to({ methods: ['GET'] })] })]
    expect(refusedOf(others, options).refused).toEqual([])
  })

  it('decisions as Istio makes them', () => {
    const { refused, needsAuthz } = refusedOf([], { mesh: { ...mesh, profile: 'istio' } })
    expect(needsAuthz).toBe(true)
    expect(refused).toMatchObject([{ name: '*', place: 'profile' }])
  })

  it('leaves who is allowed to the agent, and still denies what can be', () => {
    const set = [
      policy('no', {
        action: 'DENY',
        rules: [to({ paths: ['/admin'] }), when('request.auth.claims[a]', 'b')],
      }),
      policy('yes', { rules: [{}] }),
    ]
    const it = lowered(set)
    expect(rbacFilters(it).map(({ name }) => name)).toEqual(['castellan_guard', 'castellan_deny'])
    expect(decides(it, seenAs('/admin'))).toBe('ns[shop]-policy[no]-rule[0]')
    expect(rbacFilters(lowered(set.slice(1))).map(({ name }) => name)).toEqual([
      'castellan_guard',
      'castellan_allow',
    ])
  })
})

describe('lowered policies', () => {
  it('are not asked for the peer of a connection without TLS, where Envoy would give up', () => {
    const set = setOf([policy('yes', { rules: [{}] })])
    expect(decides(lower(set, web), seenAs('/'))).toBe('unavailable')
    const plain = lower(set, web, { connection: 'plaintext' })
    expect(decides(plain, seenAs('/'))).toBe('+ns[shop]-policy[yes]-rule[0]')
  })

  const a = 'spiffe://td/ns/a/sa/x'
  const b = 'spiffe://td/ns/b/sa/y'

  it('name the rule that decided, and deny what nothing allows', () => {
    const it = lowered([
      policy('no', {
        action: 'DENY',
        rules: [{ ...from({ principals: ['td/ns/a/sa/x'] }), ...to({ paths: ['/admin*'] }) }],
      }),
      policy('yes', {
        rules: [to({ methods: ['POST'] }), from({ principals: ['td/ns/a/sa/x', 'td/ns/c/*'] })],
      }),
    ])
    expect(decides(it, seenAs('/a?b', a))).toBe('+ns[shop]-policy[yes]-rule[1]')
    expect(decides(it, seenAs('/admin/x', a))).toBe('ns[shop]-policy[no]-rule[0]')
    expect(decides(it, seenAs('/a', b))).toBe('none')
    expect(decides(it, seenAs('/a'))).toBe('none')
    expect(decides(lowered([]), seenAs('/a', a))).toBe('none')
  })

  it('look callers up, however many there are', () => {
    const rules = Array.from({ length: 300 }, (_, i) => ({
      ...from({ principals: [`td/ns/n/sa/s${i}`] }),
      ...to({ paths: [`/p${i}`] }),
    }))
    const it = lowered([policy('yes', { rules })])
    expect(it.allow).toMatchObject({ kind: 'map', how: 'exact', input: { kind: 'peer' } })
    expect(decides(it, seenAs('/p7?x', 'spiffe://td/ns/n/sa/s7'))).toBe(
      '+ns[shop]-policy[yes]-rule[7]',
    )
    expect(decides(it, seenAs('/p8', 'spiffe://td/ns/n/sa/s7'))).toBe('none')
  })

  it('look paths up, the longest prefix with all that a shorter one says', () => {
    const paths = ['/a', '/a/*', '/a/b*', '/a/b/c', '/x*', '/xy', '/z1', '/z2', '/z3', '/z4']
    const rules = paths.map((path, i) =>
      to({ paths: [path], methods: [i % 2 === 0 ? 'GET' : 'POST'] }),
    )
    const it = lowered([policy('yes', { rules })])
    const kinds = (tree: Tree): string =>
      tree.kind === 'end'
        ? tree.name
        : `${tree.kind === 'map' ? tree.how : 'list'} ${kinds(tree.otherwise)}`
    expect(kinds(it.allow)).toBe('exact prefix none')
    const named = (target: string) => decides(it, seenAs(target))
    expect(named('/a')).toBe('+ns[shop]-policy[yes]-rule[0]')
    expect(named('/a?q')).toBe('+ns[shop]-policy[yes]-rule[0]')
    // only the shorter prefix is of this method
    expect(named('/xy')).toBe('+ns[shop]-policy[yes]-rule[4]')
    expect(named('/a/b/c')).toBe('+ns[shop]-policy[yes]-rule[2]')
    expect(named('/a/c')).toBe('none')
  })

  it('exempt nobody from a DENY in doubt, and say so of both readings', () => {
    const it = lowered([
      policy('no', {
        action: 'DENY',
        rules: [{ ...to({ paths: ['/a'] }), exceptFor: [{ source: { namespaces: ['a'] } }] }],
      }),
      policy('yes', { rules: [{}] }),
    ])
    expect(decides(it, seenAs('/a', a))).toBe('+ns[shop]-policy[yes]-rule[0]')
    expect(decides(it, seenAs('/a', 'spiffe://other/ns/a/sa/x'))).toBe(
      'ns[shop]-policy[no]-rule[0]',
    )
    expect(decides(it, seenAs('/a'))).toBe('ns[shop]-policy[no]-rule[0]')
  })

  it('deny a caller without identity where mutual TLS is demanded, by port where it is', () => {
    const peers = (spec: object) => ({
      apiVersion: 'security.istio.io/v1',
      kind: 'PeerAuthentication',
      metadata: { name: 'peers', namespace: 'shop' },
      spec,
    })
    const yes = policy('yes', { rules: [{}] })
    const strict = lowered([peers({ mtls: { mode: 'STRICT' } }), yes])
    expect(decides(strict, seenAs('/'))).toBe('guard[mutual-tls]')
    expect(decides(strict, seenAs('/', a))).toBe('+ns[shop]-policy[yes]-rule[0]')
    const selector = { matchLabels: { app: 'web' } }
    const portLevelMtls = { 80: { mode: 'STRICT' }, 81: { mode: 'DISABLE' } }
    const byPort = lowered([peers({ selector, portLevelMtls }), yes])
    const at = (destinationPort: number) => ({ ...seenAs('/'), destinationPort })
    expect([80, 81, 82].map((port) => decides(byPort, at(port)))).toEqual([
      'guard[mutual-tls]',
      '+ns[shop]-policy[yes]-rule[0]',
      '+ns[shop]-policy[yes]-rule[0]',
    ])
  })

  it('leave out what has expired, and say when the next one will', () => {
    const at = (day: string) => Date.parse(day)
    const set = [
      policy('old', { expires: '2026-01-01', rules: [{}] }),
      policy('new', { expires: '2027-01-01', rules: [to({ paths: ['/a'] })] }),
    ]
    const it = lowered(set, { now: at('2026-06-01') })
    expect(it.changesAt).toBe(at('2027-01-01'))
    expect(decides(it, seenAs('/a'))).toBe('+ns[shop]-policy[new]-rule[0]')
    expect(decides(it, seenAs('/b'))).toBe('none')
  })

  it('let methods pass that a rule names, and what they demand of the listener is said', () => {
    const it = lowered([
      policy('no', {
        action: 'DENY',
        rules: [to({ notPaths: ['/a'] }), when('connection.sni', 'x')],
      }),
      policy('yes', { rules: [to({ methods: ['PROPFIND'] })] }),
    ])
    expect(it.demands).toEqual(['plain-slashes', 'tls-inspector'])
    const asked = { ...plainSent, target: '/a', method: 'PROPFIND' }
    const seen = asEnvoySees(asked, { mergesSlashes: false, trustedHops: 0 })
    expect(seen && decides(it, seen)).toBe('+ns[shop]-policy[yes]-rule[0]')
    expect(decides(lowered([]), seen ?? seenAs('/'))).toBe('guard[method]')
  })

  it('are written as Envoy’s configuration names them', () => {
    const it = lowered([policy('yes', { rules: [from({ principals: ['td/ns/a/sa/x'] })] })])
    const [, allow] = rbacFilters(it)
    if (allow === undefined) throw new Error('no filter')
    expect(rbacVerdict(allow.typedConfig, seenAs('/', a)).isAllowed).toBe(true)
    const json = filterJson(allow)
    expect(json).toMatchObject({
      name: 'castellan_allow',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC',
        matcher: { matcher_tree: { exact_match_map: { map: { [a]: { action: {} } } } } },
      },
    })
  })

  it('of TCP know who and where, and leave HTTP out as the engine does', () => {
    const documents = [
      policy('no', {
        action: 'DENY',
        rules: [{ ...from({ principals: ['td/ns/b/*'] }), ...to({ paths: ['/a'] }) }],
      }),
      policy('yes', { rules: [to({ paths: ['/a'] }), to({ ports: ['80'] })] }),
    ]
    const it = lower(setOf(documents), web, { protocol: 'tcp' })
    const at = (uri: string, destinationPort = 80) => ({
      ...seenAs('/', uri),
      headers: [],
      destinationPort,
    })
    expect(decides(it, at(a))).toBe('+ns[shop]-policy[yes]-rule[1]')
    expect(decides(it, at(a, 81))).toBe('none')
    expect(decides(it, at(b))).toBe('ns[shop]-policy[no]-rule[0]')
    const [guard] = rbacFilters(it)
    expect(guard && filterJson(guard)).toMatchObject({
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC',
      },
    })
  })
})

// What can be done to a request so that a field of a rule holds: for each field a few changes, the most
// natural first. Whether it holds then, the engine says.
import type { Claims } from '../attributes/request.ts'
import type { Mesh } from '../language/mesh.ts'
import type { Attribute, RuleField } from '../language/rule-fields.ts'
import type { Change, Draft } from './draft.ts'
import {
  addressExample,
  examplesOf,
  hostExamples,
  pathExamples,
  principalExamples,
} from './examples.ts'

export const withHeader =
  (name: string, value: string): Change =>
  (draft) => ({
    ...draft,
    headers: [...draft.headers.filter(([known]) => known !== name), [name, value]],
  })

export const withoutHeader =
  (name: string): Change =>
  (draft) => ({ ...draft, headers: draft.headers.filter(([known]) => known !== name) })

function isRecord(value: unknown): value is Claims {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function withMember(
  claims: unknown,
  [name = '', ...inner]: readonly string[],
  value: unknown,
): Claims {
  const known = isRecord(claims) ? claims : {}
  return { ...known, [name]: inner.length === 0 ? value : withMember(known[name], inner, value) }
}

const withClaim =
  (names: readonly string[], value: unknown): Change =>
  (draft) => ({ ...draft, claims: withMember(draft.claims, names, value) })

/** Issuer and subject that a word of requestPrincipals means. */
export function tokenOf(text: string): { readonly iss: string; readonly sub: string } {
  const first = (pattern: string) => examplesOf(pattern)[0] ?? pattern
  const slash = text.lastIndexOf('/')
  if (slash >= 0) return { iss: first(text.slice(0, slash)), sub: first(text.slice(slash + 1)) }
  if (text === '*' || text.endsWith('*')) return { iss: first(text), sub: 'any' }
  if (text.startsWith('*')) return { iss: 'any', sub: first(text) }
  return { iss: text, sub: '' }
}

const withPrincipal =
  (principal: string | undefined): Change =>
  (draft) => ({ ...draft, principal })

const own = (mesh: Mesh, namespace: string, account: string) =>
  `spiffe://${mesh.trustDomain}/ns/${namespace}/sa/${account}`

function accountOf(text: string, ownNamespace: string): { namespace: string; account: string } {
  const slash = text.indexOf('/')
  return slash < 0
    ? { namespace: ownNamespace, account: text }
    : { namespace: text.slice(0, slash), account: text.slice(slash + 1) }
}

export interface Around {
  readonly mesh: Mesh
  /** of the policy */
  readonly namespace: string
}

type Choose = (text: string, around: Around, names: readonly string[]) => readonly Change[]

const addresses =
  (set: (draft: Draft, address: string) => Draft): Choose =>
  (text) => {
    const address = addressExample(text)
    return address === undefined ? [] : [(draft) => set(draft, address)]
  }

const table: Readonly<Record<Attribute, Choose>> = {
  principals: (text, { mesh }) => principalExamples(text, mesh).map(withPrincipal),
  namespaces: (text, { mesh }) => [withPrincipal(own(mesh, text.replaceAll('*', 'any'), 'any'))],
  serviceAccounts(text, { mesh, namespace: ownNamespace }) {
    const { namespace, account } = accountOf(text, ownNamespace)
    return [withPrincipal(own(mesh, namespace, account))]
  },
  trustDomains: (text, { mesh }) =>
    principalExamples(`${examplesOf(text)[0]}/ns/any/sa/any`, mesh).map(withPrincipal),
  ipBlocks: addresses((draft, ip) => ({ ...draft, ip })),
  remoteIpBlocks: addresses((draft, remoteIp) => ({ ...draft, remoteIp })),
  requestPrincipals(text) {
    const { iss, sub } = tokenOf(text)
    return [(draft) => withClaim(['sub'], sub)(withClaim(['iss'], iss)(draft))]
  },
  hosts: (text) =>
    hostExamples(text).map(
      (host): Change =>
        (draft) => ({ ...draft, host }),
    ),
  ports: (text) => [(draft) => ({ ...draft, port: Number(text) })],
  methods: (text) =>
    examplesOf(text, 'X').map(
      (method): Change =>
        (draft) => ({ ...draft, method }),
    ),
  paths: (text) =>
    pathExamples(text).map(
      (path): Change =>
        (draft) => ({ ...draft, path }),
    ),
  target: (text) =>
    pathExamples(text).map(
      (path): Change =>
        (draft) => ({ ...draft, path }),
    ),
  header: (text, _, [name = '']) => examplesOf(text).map((value) => withHeader(name, value)),
  claim: (text, _, names) => examplesOf(text).map((value) => withClaim(names, value)),
  destinationIp: addresses((draft, toIp) => ({ ...draft, toIp })),
  sni: (text) =>
    examplesOf(text).map(
      (sni): Change =>
        (draft) => ({ ...draft, sni }),
    ),
  metadata: () => [],
}

const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD']
const otherIps = ['198.51.100.7', '203.0.113.9', '2001:db8:0:0:0:0:0:7']

/** Somebody whom no policy has in mind, of this trust domain and of another. */
export const strangers = (mesh: Mesh): readonly string[] => [
  own(mesh, 'stranger', 'stranger'),
  'spiffe://stranger.test/ns/stranger/sa/stranger',
]

type Avoid = (mesh: Mesh, names: readonly string[]) => readonly Change[]

const others: Readonly<Record<Attribute, Avoid>> = {
  principals: (mesh) => strangers(mesh).map(withPrincipal),
  namespaces: (mesh) => strangers(mesh).map(withPrincipal),
  serviceAccounts: (mesh) => strangers(mesh).map(withPrincipal),
  trustDomains: (mesh) => strangers(mesh).map(withPrincipal),
  ipBlocks: () =>
    otherIps.map(
      (ip): Change =>
        (draft) => ({ ...draft, ip }),
    ),
  remoteIpBlocks: () =>
    otherIps.map(
      (remoteIp): Change =>
        (draft) => ({ ...draft, remoteIp }),
    ),
  requestPrincipals: () => [withClaim(['sub'], 'stranger')],
  hosts: () =>
    ['service.test', 'other.test'].map(
      (host): Change =>
        (draft) => ({ ...draft, host }),
    ),
  ports: () =>
    [8443, 8080, 443].map(
      (port): Change =>
        (draft) => ({ ...draft, port }),
    ),
  methods: () =>
    methods.map(
      (method): Change =>
        (draft) => ({ ...draft, method }),
    ),
  paths: () =>
    ['/', '/any', '/any/thing'].map(
      (path): Change =>
        (draft) => ({ ...draft, path }),
    ),
  target: () =>
    ['/', '/any', '/any/thing'].map(
      (path): Change =>
        (draft) => ({ ...draft, path }),
    ),
  header: (_, [name = '']) => [withoutHeader(name), withHeader(name, 'other')],
  claim: (_, names) => [withClaim(names, 'other')],
  destinationIp: () =>
    otherIps.map(
      (toIp): Change =>
        (draft) => ({ ...draft, toIp }),
    ),
  sni: () =>
    ['service.test', 'other.test'].map(
      (sni): Change =>
        (draft) => ({ ...draft, sni }),
    ),
  metadata: () => [],
}

/** Changes after which the field may hold. */
export function choicesFor(field: RuleField, around: Around): readonly Change[] {
  const { attribute, isNegated, texts, names } = field
  if (isNegated) return others[attribute](around.mesh, names)
  return texts.flatMap((text) => table[attribute](text, around, names))
}

/** Changes to what one word of the field means. */
export function choicesForText(field: RuleField, text: string, around: Around): readonly Change[] {
  return table[field.attribute](text, around, field.names)
}

/**
 * Callers made of what several fields say together: the trust domain of one, the namespace of another, the
 * account of a third.
 */
export function callersFor(
  fields: readonly RuleField[],
  { mesh, namespace: its }: Around,
): readonly Change[] {
  const of = (attribute: Attribute) =>
    fields.filter((it) => it.attribute === attribute && !it.isNegated).flatMap(({ texts }) => texts)
  const domains = of('trustDomains').flatMap((text) => examplesOf(text))
  const accounts = of('serviceAccounts').map((text) => accountOf(text, its))
  const namespaces = of('namespaces').map((text) => text.replaceAll('*', 'any'))
  const places = [
    ...accounts,
    ...namespaces.map((namespace) => ({ namespace, account: 'any' })),
    { namespace: 'any', account: 'any' },
  ]
  return [mesh.trustDomain, ...domains]
    .slice(0, 8)
    .flatMap((domain) =>
      places
        .slice(0, 16)
        .map(({ namespace, account }) =>
          withPrincipal(`spiffe://${domain}/ns/${namespace}/sa/${account}`),
        ),
    )
}

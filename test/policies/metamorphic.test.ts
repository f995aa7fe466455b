// What holds of any policies and requests, whatever they say (authorization.md §5.8). 1 to 3 are about paths
// alone: attributes/path-properties.test.ts; 9 is proven where policies are lowered, 11 by the corpus.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Profile } from '../../policies/language/mesh.ts'
import { answerOf, evaluatorOf, meshOf } from '../support/differential.ts'
import type { OracleMesh, OracleRequest } from '../support/oracle/decide.ts'
import {
  allowPolicy,
  denyPolicy,
  documents,
  mesh,
  numbered,
  type RandomDocument,
  vocabularies,
} from '../support/random-policies.ts'
import { request } from '../support/random-requests.ts'

type Decision = 'allow' | 'deny' | 'reject'

const requests = fc.array(request, { minLength: 1, maxLength: 80, size: 'max' })
const anyAllow = allowPolicy(vocabularies.everything)

function decisions(
  list: readonly RandomDocument[],
  its: { readonly mesh: OracleMesh; readonly profile: Profile },
  asked: readonly OracleRequest[],
): Decision[] {
  const evaluator = evaluatorOf(list, meshOf(its.mesh, its.profile))
  return asked.map((one) => answerOf(one, evaluator).decision)
}

interface Turn {
  readonly before: readonly Decision[]
  readonly after: readonly Decision[]
}

/** No decision `from` became `to`, in 60 sets; and there were enough of them to say so. */
function neverTurned<T>(
  from: Decision,
  to: Decision,
  { of, by }: { readonly of: fc.Arbitrary<T>; readonly by: (value: T) => Turn },
): void {
  let met = 0
  fc.assert(
    fc.property(of, (value) => {
      const { before, after } = by(value)
      met += before.filter((decision) => decision === from).length
      expect(before.map((was, i) => was === from && after[i] === to)).not.toContain(true)
    }),
    { numRuns: 60 },
  )
  expect(met).toBeGreaterThan(50)
}

/** The same with every negation turned into the field that it negates. */
function positive(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(positive)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value)
  const given = new Set(fields.map(([name]) => name))
  const kept = fields.flatMap(([name, inner]) => {
    const base = name.replace(/^not(.)/, (_, first: string) => first.toLowerCase())
    return base !== name && given.has(base) ? [] : [[base, positive(inner)]]
  })
  return Object.fromEntries(kept)
}

/** Every list in another order. */
function permuted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(permuted).reverse()
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, permuted(inner)]))
}

const withSpec = (it: RandomDocument, change: (spec: unknown) => unknown): RandomDocument => ({
  ...it,
  spec: Object(change(it.spec)),
})

/** An ALLOW that counts for every destination, and allows nothing. */
const always: RandomDocument = {
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name: 'always', namespace: 'root' },
  spec: { action: 'ALLOW', rules: [] },
}
const rooted = mesh.map((it) => ({ ...it, rootNamespace: 'root' }))

/** ALLOW policies that name only what has to be there. */
const positiveAllows = fc
  .array(anyAllow, { minLength: 1, maxLength: 5 })
  .map((list) => [...numbered(list.map((it) => withSpec(it, positive))), always])

type Removal = (asked: OracleRequest) => OracleRequest

const withHttp = (asked: OracleRequest, change: object): OracleRequest =>
  asked.http === undefined ? asked : { ...asked, http: { ...asked.http, ...change } }

const forwardedIn = ({ http }: OracleRequest) =>
  (http?.headers ?? []).filter(([name]) => name?.toLowerCase() === 'x-forwarded-for')

const removals: Readonly<Record<string, Removal>> = {
  identity: (asked) => ({ ...asked, source: { ip: asked.source?.ip } }),
  token: ({ jwt: _, ...asked }) => asked,
  SNI: ({ tls: _, ...asked }) => asked,
  address: (asked) => ({ ...asked, source: { principal: asked.source?.principal } }),
  host: (asked) => withHttp(asked, { host: undefined }),
  // but for the one that says of whom the address is: without it that is the socket's peer (corpus/README.md)
  headers: (asked) => withHttp(asked, { headers: forwardedIn(asked) }),
}

describe.each(['strict', 'istio'] as const)('in %s', (profile) => {
  it('4: one more DENY turns no denial into an admission', () => {
    const of = fc.tuple(mesh, documents, denyPolicy(vocabularies.everything), requests)
    neverTurned('deny', 'allow', {
      of,
      by: ([its, list, deny, asked]) => ({
        before: decisions(list, { mesh: its, profile }, asked),
        after: decisions(numbered([...list, deny]), { mesh: its, profile }, asked),
      }),
    })
  })

  it('5: one more ALLOW turns no admission into a denial, where an ALLOW is already', () => {
    neverTurned('allow', 'deny', {
      of: fc.tuple(rooted, documents, anyAllow, requests),
      by: ([its, list, allow, asked]) => ({
        before: decisions([...list, always], { mesh: its, profile }, asked),
        after: decisions([...numbered([...list, allow]), always], { mesh: its, profile }, asked),
      }),
    })
  })

  it.each(Object.entries(removals))(
    '6: without %s no denial by ALLOW policies without negation becomes an admission',
    (_name, remove) => {
      neverTurned('deny', 'allow', {
        of: fc.tuple(rooted, positiveAllows, requests),
        by: ([its, list, asked]) => ({
          before: decisions(list, { mesh: its, profile }, asked),
          after: decisions(list, { mesh: its, profile }, asked.map(remove)),
        }),
      })
    },
  )

  it('7: the order of policies, rules, alternatives and values says nothing', () => {
    const of = fc.tuple(mesh, documents, requests)
    const by = ([its, list, asked]: [OracleMesh, RandomDocument[], OracleRequest[]]): Turn => ({
      before: decisions(list, { mesh: its, profile }, asked),
      after: decisions(
        list.map((it) => withSpec(it, permuted)).reverse(),
        { mesh: its, profile },
        asked,
      ),
    })
    neverTurned('deny', 'allow', { of, by })
    neverTurned('allow', 'deny', { of, by })
  })

  it('8: one more alias turns no admission into a denial by ALLOW policies without negation', () => {
    neverTurned('allow', 'deny', {
      of: fc.tuple(rooted, positiveAllows, requests),
      by: ([its, list, asked]) => {
        const under = (...trustDomainAliases: string[]) =>
          decisions(list, { mesh: { ...its, trustDomainAliases }, profile }, asked)
        return { before: under('old'), after: under('old', 'older') }
      },
    })
  })

  it('10: a policy that is tried dry leaves every decision as it was', () => {
    const dry = fc.oneof(anyAllow, denyPolicy(vocabularies.everything)).map((it) => ({
      ...it,
      metadata: { ...it.metadata, annotations: { 'istio.io/dry-run': 'true' } },
    }))
    const of = fc.tuple(mesh, documents, dry, requests)
    const by = ([its, list, tried, asked]: [
      OracleMesh,
      RandomDocument[],
      RandomDocument,
      OracleRequest[],
    ]): Turn => ({
      before: decisions(list, { mesh: its, profile }, asked),
      after: decisions(numbered([...list, tried]), { mesh: its, profile }, asked),
    })
    neverTurned('deny', 'allow', { of, by })
    neverTurned('allow', 'deny', { of, by })
  })
})

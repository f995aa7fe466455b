// Policies and requests out of few words, so that they meet often.
import fc from 'fast-check'
import type { Policy } from '../../policies/read.ts'
import type { Request } from '../../policies/request.ts'
import type { NaivePolicy, NaiveRequest } from './naive-policies.ts'
import { httpRequest, policyText, tcpRequest } from './policy-text.ts'

const some = (...values: string[]) =>
  fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 })

const ids = ['td/ns/a/sa/x', 'td/ns/a/sa/xy', 'td/ns/b/sa/x', 'td2/ns/a/sa/x', 'td/x.y']
const source = fc.record({ principals: some(...ids, 'td/*', 'td*', '*/x', 'td/x*', '*') })
const operation = fc
  .record(
    {
      methods: some('GET', 'POST', 'P*', '*T', '*'),
      paths: some('/a', '/a*', '/a/*', '*b', '/', '*', '/a%2Fb', '/a.b'),
      ports: some('80', '443', '4430'),
    },
    { requiredKeys: [] },
  )
  .filter((it) => Object.keys(it).length > 0)
const rule = fc.record(
  {
    from: fc.array(fc.record({ source }), { minLength: 1, maxLength: 2 }),
    to: fc.array(fc.record({ operation }), { minLength: 1, maxLength: 3 }),
  },
  { requiredKeys: [] },
)

const name = fc.stringMatching(/^[a-z]{12}$/)
const namespace = fc.constantFrom('shop', 'shop', 'other', 'istio-system')

/** mostly ALLOW, for a DENY often leaves nothing to decide */
export const policy = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      name,
      namespace,
      action: fc.constant('ALLOW' as const),
      rules: fc.array(rule, { maxLength: 4 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      name,
      namespace,
      action: fc.constant('DENY' as const),
      rules: fc.array(rule, { minLength: 1, maxLength: 2 }),
    }),
  },
)

export type RandomPolicy = Omit<Policy, 'file' | 'lines'>

/** As if it had been read. */
export const policyOf = (spec: RandomPolicy): Policy => ({
  ...spec,
  file: 'random.yaml',
  lines: [],
})

export const specOf = ({ namespace, action, rules }: RandomPolicy): NaivePolicy => ({
  namespace,
  action,
  rules,
})

/** JSON is YAML in flow style. */
export const document = ({ rules, ...named }: RandomPolicy): string =>
  policyText(JSON.stringify(rules), named)

const destinations = {
  'td/ns/shop/sa/web': 'shop',
  'td/ns/other/sa/z': 'other',
  'td/web': 'default',
}

export const request: fc.Arbitrary<{ request: Request; naive: NaiveRequest }> = fc
  .record({
    from: fc.option(fc.constantFrom(...ids), { nil: undefined }),
    to: fc.constantFrom(...Object.entries(destinations)),
    port: fc.constantFrom(80, 443, 4430, 8443),
    line: fc.option(
      fc
        .tuple(
          fc.constantFrom('GET', 'POST', 'PUT', 'get'),
          fc.constantFrom('/', '/a', '/a/b', '/ab', '/a%2fb', '/a/../a', '/a.b', '/b?/a', '/aXb'),
        )
        .map((parts) => parts.join(' ')),
      { nil: undefined, freq: 3 },
    ),
  })
  .map(({ from, to: [to, namespace], port, line }) => {
    const between = { from, to, port }
    const made = line === undefined ? tcpRequest(between) : httpRequest(line, between)
    const peer = from === undefined ? undefined : `spiffe://${from}`
    return { request: made, naive: { peer, namespace, port, http: made.http } }
  })

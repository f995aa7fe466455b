import { headerRules } from '../../../policies/lint/headers.ts'
import { policyText } from '../../support/policy-text.ts'
import { allowing, anybody, both, documents, type LintCase, other, proves } from './found.ts'

const header = (name: string, values = '["x"]') =>
  `[{ when: [{ key: "request.headers[${name}]", values: ${values} }] }]`
const from = (source: string) => `[{ from: [{ source: { ${source} } }] }]`
const hops = { trustedHops: 2 }

const cases: readonly LintCase[] = [
  {
    rule: 'header-never-seen',
    shows: both(anybody, header('X-Envoy-Original-Path', '["/admin*"]')),
    says: /^x-envoy-original-path is taken off before anything is decided/,
    witness: /\[x-envoy-original-path: \/adminany\]: allowed/,
    at: '9 spec.rules[0].when[0].values',
    clean: both(anybody, header('x-original-path')),
  },
  {
    rule: 'header-never-seen',
    shows: other('{ rules: [{ condition: \'"td/x" in request.headers["x-spiffe-peer-id"]\' }] }', {
      kind: 'AuthorizationPolicy',
    }),
    says: /^x-spiffe-peer-id is taken off/,
    witness: /\[x-spiffe-peer-id: any\]: denied/,
    at: '4 spec.rules[0].condition',
    clean: other('{ rules: [{ condition: \'source.principal == "spiffe://td/x"\' }] }', {
      kind: 'AuthorizationPolicy',
    }),
  },
  {
    rule: 'header-of-anybody',
    shows: allowing(header('x-forwarded-user', '[root]')),
    says: /may write x-forwarded-user as it likes$/,
    witness: /\[x-forwarded-user: root\]: allowed/,
    at: '4 spec.rules[0].when[0].values',
    clean: allowing(header('x-tenant', '[root]')),
  },
  {
    rule: 'method-override',
    shows: allowing('[{ to: [{ operation: { methods: [POST], paths: [/pay] } }] }]'),
    says: /^the method is compared as sent/,
    witness: /POST \/pay .*\[x-http-method-override: DELETE\]: allowed/,
    at: '4 spec.rules[0].to[0].operation.methods',
    clean: both(
      '[{ to: [{ operation: { methods: [POST], paths: [/pay] } }] }]',
      ['x-http-method-override', 'x-http-method', 'x-method-override']
        .map((name) => header(name, '["*"]').slice(1, -1))
        .join(', ')
        .replace(/^(.*)$/, '[$1]'),
    ),
  },
  {
    rule: 'method-override',
    shows: allowing('[{ to: [{ operation: { notMethods: [DELETE] } }] }]'),
    says: /^the method is compared as sent/,
    witness: /\[x-http-method-override: DELETE\]/,
    at: '4 spec.rules[0].to[0].operation.notMethods',
    // every method is allowed: nothing is gained
    clean: allowing('[{ to: [{ operation: { methods: ["*"] } }] }]'),
  },
  {
    rule: 'forwarded-address-of-anybody',
    profile: 'istio',
    mesh: hops,
    shows: allowing(from('remoteIpBlocks: [10.0.0.0/8]')),
    says: /anybody who reaches the workload may write such an address/,
    witness: /\(198\.51\.100\.7\).*\[x-forwarded-for: 10\.0\.0\.1, 192\.0\.2\.1\]: allowed/,
    at: '4 spec.rules[0].from[0].source.remoteIpBlocks',
    clean: allowing(from('remoteIpBlocks: [10.0.0.0/8], ipBlocks: [192.0.2.0/24]')),
    cleanSetting: { profile: 'istio', mesh: { trustedHops: 1, trustedProxies: ['192.0.2.0/24'] } },
  },
  {
    rule: 'forwarded-address-never-seen',
    mesh: hops,
    shows: allowing(from('remoteIpBlocks: [10.0.0.0/8]')),
    says: /X-Forwarded-For is believed of nobody/,
    witness: /\[x-forwarded-for: 10\.0\.0\.1, 192\.0\.2\.1\]: denied/,
    at: '4 spec.rules[0].from[0].source.remoteIpBlocks',
    clean: allowing(from('remoteIpBlocks: [10.0.0.0/8]')),
    cleanSetting: { mesh: { ...hops, trustedProxies: ['192.0.2.0/24'] } },
  },
  {
    rule: 'forwarded-address-never-seen',
    profile: 'istio',
    shows: allowing('[{ when: [{ key: remote.ip, values: [10.1.2.3] }] }]'),
    says: /"10\.1\.2\.3"/,
    witness: /\[x-forwarded-for: 10\.1\.2\.3\]: denied/,
    at: '4 spec.rules[0].when[0].values',
    clean: allowing('[{ when: [{ key: source.ip, values: [10.1.2.3] }] }]'),
  },
  {
    rule: 'metadata-unknown',
    shows: documents(
      allowing(anybody),
      policyText(
        '[{ when: [{ key: "experimental.envoy.filters.network.mysql_proxy[db]", values: ["[x]"] }] }]',
        { name: 'deny', action: 'DENY' },
      ),
    ),
    says: /the condition always holds$/,
    witness: /: denied by DENY shop\/deny/,
    at: '9 spec.rules[0].when[0].key',
    clean: both(anybody, header('x-db')),
  },
  {
    rule: 'metadata-unknown',
    profile: 'istio',
    shows: allowing(
      '[{ when: [{ key: "experimental.envoy.filters.network.mysql_proxy[db]", values: ["[x]"] }] }]',
    ),
    says: /the condition never holds$/,
    witness: /: denied/,
    at: '4 spec.rules[0].when[0].key',
    clean: allowing(header('x-db')),
  },
]

proves(headerRules, cases)

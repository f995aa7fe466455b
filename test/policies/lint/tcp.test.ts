import { tcpRules } from '../../../policies/lint/tcp.ts'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { allowing, anybody, both, type LintCase, proves } from './found.ts'

const workloads = [
  { id: parseSpiffeId('spiffe://td/ns/shop/sa/queue'), namespace: 'shop', labels: {}, tcp: [7000] },
]

const cases: readonly LintCase[] = [
  {
    rule: 'allow-of-http-on-tcp',
    shows: allowing(
      '[{ from: [{ source: { principals: [td/a] } }], to: [{ operation: { ports: ["5432"], methods: [GET] } }] }]',
    ),
    says: /never allows a TCP connection to port 5432 \(that is PostgreSQL\)/,
    witness: /^spiffe:\/\/td\/a .*:5432 TCP: denied \(no ALLOW rule matches\)$/,
    at: '4 spec.rules[0].to[0].operation.ports[0]',
    clean: allowing(
      '[{ from: [{ source: { principals: [td/a] } }], to: [{ operation: { ports: ["5432"] } }] }]',
    ),
  },
  {
    rule: 'allow-of-http-on-tcp',
    workloads,
    shows: allowing('[{ to: [{ operation: { ports: ["80", "7000"], paths: [/x] } }] }]'),
    says: /port 7000 \(a workload has no HTTP there\)/,
    witness: /:7000 TCP: denied/,
    at: '4 spec.rules[0].to[0].operation.ports[1]',
    clean: allowing('[{ to: [{ operation: { ports: ["80"], paths: [/x] } }] }]'),
  },
  {
    rule: 'allow-of-http-on-tcp',
    shows: allowing(
      '[{ to: [{ operation: { ports: ["7000"] } }, { operation: { methods: [GET] } }] }]',
    ),
    says: /port 7000 \(its operation asks for nothing else\)/,
    witness: /:7000 TCP: denied/,
    at: '4 spec.rules[0].to[0].operation.ports[0]',
    clean: allowing(
      '[{ to: [{ operation: { ports: ["7000"] } }] }, { to: [{ operation: { methods: [GET] } }] }]',
    ),
  },
  {
    rule: 'deny-of-http-on-tcp',
    shows: both(anybody, '[{ to: [{ operation: { paths: [/admin, /admin/] } }] }]'),
    says: /it denies every TCP connection that an ALLOW lets in$/,
    witness: /TCP: denied by DENY shop\/deny, rule 0$/,
    at: '9 spec.rules[0]',
    // an ALLOW for HTTP lets no TCP in
    clean: both(
      '[{ to: [{ operation: { paths: ["*"] } }] }]',
      '[{ to: [{ operation: { paths: [/admin, /admin/] } }] }]',
    ),
  },
  {
    rule: 'deny-of-http-on-tcp',
    profile: 'istio',
    shows: `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny, namespace: shop }
spec: { action: DENY, rules: [{ from: [{ source: { namespaces: [b] } }], to: [{ operation: { methods: [DELETE] } }] }] }
`,
    says: /it denies TCP connections that an ALLOW lets in$/,
    witness: /^spiffe:\/\/td\/ns\/b\/sa\/any .* TCP: denied by DENY/,
    at: '4 spec.rules[0]',
    clean: both(anybody, '[{ to: [{ operation: { methods: [DELETE], ports: ["8443"] } }] }]'),
    cleanSetting: {},
  },
  {
    rule: 'deny-of-http-on-tcp',
    workloads,
    shows: both(
      anybody,
      '[{ to: [{ operation: { methods: [DELETE], ports: ["8443", "7000"] } }] }]',
    ),
    says: /it denies TCP connections to port 7000 \(a workload has no HTTP there\)/,
    witness: /:7000 TCP: denied by DENY/,
    at: '9 spec.rules[0].to[0].operation.ports[1]',
    clean: both(anybody, '[{ to: [{ operation: { methods: [DELETE], ports: ["8443"] } }] }]'),
  },
]

proves(tcpRules, cases)

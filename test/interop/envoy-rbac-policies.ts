// Policies that ask about all that Envoy can be asked about.

const paths = ['/p1', '/p2*', '/p3', '/p4', '/p5/*', '/p6', '/p7*', '/p8', '/p9', '/healthz']

const common = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no, namespace: app }
spec:
  action: DENY
  rules:
  - to: [{ operation: { paths: [/admin, /admin/*, '*.secret', '/t/{*}/x'] } }]
  - to: [{ operation: { hosts: [deny.example, '*.deny.example', 'prefix.*', 'h:81'] } }]
  - when: [{ key: 'request.headers[x-role]', values: [admin, 'ro*'] }]
  - from: [{ source: { remoteIpBlocks: [10.0.0.0/8] } }]
  - from: [{ source: { ipBlocks: ['::ffff:192.0.2.0/120'] } }]
  - from: [{ source: { principals: [td/odd] } }]
    to: [{ operation: { methods: [POST] } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: yes, namespace: app }
spec:
  rules:
  - from: [{ source: { principals: [td/ns/a/sa/x] } }]
    to:
${paths.map((it) => `    - operation: { paths: ['${it}'], methods: [GET] }`).join('\n')}
    - operation: { paths: [/public*, '/%C3%A9*', /t/*, /] }
  - from: [{ source: { namespaces: [b] } }]
    to: [{ operation: { notPaths: [/x*], notMethods: [POST] } }]
  - from: [{ source: { notPrincipals: [td/ns/*] } }]
    when: [{ key: 'request.headers[x-tier]', values: [gold] }]
`

const stubborn = `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: only-paths, namespace: app }
spec:
  action: DENY
  rules:
  - to: [{ operation: { notPaths: [/, /public*, '/p*', '/%c3%a9*', /healthz, '/t/{**}'] } }]
`

/** `isStubborn`: a DENY sees paths as they were sent, and slashes are not merged. */
export function richPolicies(isStubborn: boolean): string {
  return isStubborn ? common + stubborn : common
}

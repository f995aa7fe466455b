import { callerRules } from '../../../policies/lint/callers.ts'
import { policyText } from '../../support/policy-text.ts'
import { allowing, anybody, both, documents, type LintCase, other, proves } from './found.ts'

const from = (source: string) => `[{ from: [{ source: { ${source} } }] }]`
const peers = (spec: string, name = 'mtls') => other(spec, { kind: 'PeerAuthentication', name })

const cases: readonly LintCase[] = [
  {
    rule: 'allow-only-negative',
    profile: 'istio',
    shows: allowing(from('notPrincipals: [td/ns/bad/sa/b]')),
    says: /^notPrincipals alone says only who may not come: anybody else may, without identity too$/,
    witness: /^plaintext .*: allowed by ALLOW shop\/allow, rule 0$/,
    at: '4 spec.rules[0].from[0].source.notPrincipals',
    clean: allowing(from('principals: ["*"], notPrincipals: [td/ns/bad/sa/b]')),
  },
  {
    rule: 'allow-only-negative',
    profile: 'istio',
    shows: documents(allowing(from('notNamespaces: [bad]')), peers('{ mtls: { mode: STRICT } }')),
    says: /notNamespaces/,
    // plaintext is denied there: somebody with an identity
    witness: /^spiffe:\/\/td\/ns\/stranger\/sa\/stranger .*: allowed/,
    at: '4 spec.rules[0].from[0].source.notNamespaces',
    clean: documents(
      allowing(from('notNamespaces: [bad]')),
      policyText('[{ from: [{ source: { notPrincipals: [td/ns/good/sa/x] } }] }]', {
        name: 'deny',
        action: 'DENY',
      }),
    ),
  },
  {
    rule: 'allow-only-negative',
    shows: allowing('[{ when: [{ key: source.trustDomain, notValues: [evil.test] }] }]'),
    says: /from any trust domain that is believed$/,
    witness: /^spiffe:\/\/td\/ns\/stranger\/sa\/stranger/,
    at: '4 spec.rules[0].when[0].notValues',
    clean: allowing('[{ when: [{ key: source.trustDomain, values: [td] }] }]'),
  },
  {
    rule: 'principal-pattern-inside-name',
    shows: allowing(from('principals: [td/ns/a*]')),
    says: /^"td\/ns\/a\*" also takes "td\/ns\/a-other\/sa\/any"/,
    witness: /^spiffe:\/\/td\/ns\/a-other\/sa\/any .*: allowed/,
    at: '4 spec.rules[0].from[0].source.principals[0]',
    clean: allowing(from('principals: [td/ns/a/*]')),
  },
  {
    rule: 'principal-pattern-inside-name',
    shows: allowing(from('principals: ["td*"]')),
    says: /also takes "td-other\/ns\/any\/sa\/any"/,
    witness: /^spiffe:\/\/td-other\//,
    at: '4 spec.rules[0].from[0].source.principals[0]',
    clean: allowing(from('principals: ["td/*"]')),
  },
  {
    rule: 'principal-pattern-inside-name',
    shows: allowing(from('principals: ["*sa/web"]')),
    says: /also takes "td\/other-sa\/web"/,
    witness: /^spiffe:\/\/td\/other-sa\/web/,
    at: '4 spec.rules[0].from[0].source.principals[0]',
    clean: allowing(from('principals: ["*/sa/web"]')),
  },
  {
    rule: 'principal-pattern-inside-name',
    shows: both(anybody, from('notPrincipals: [td/ns/shop/sa/w*, "*x"]')),
    says: /also takes "td\/ns\/shop\/sa\/w-other"/,
    witness: /^spiffe:\/\/td\/ns\/shop\/sa\/w-other .*: allowed by ALLOW/,
    at: '9 spec.rules[0].from[0].source.notPrincipals[0]',
    clean: both(anybody, from('notPrincipals: [td/ns/shop/sa/w, "*/x"]')),
  },
  {
    rule: 'namesake-of-other-trust-domain',
    profile: 'istio',
    shows: allowing(from('namespaces: [a]')),
    says: /^namespaces takes namesakes of every trust domain/,
    witness: /^spiffe:\/\/other\.test\/ns\/a\/sa\/any .*: allowed/,
    at: '4 spec.rules[0].from[0].source.namespaces',
    clean: allowing(from('namespaces: [a], trustDomains: [td]')),
  },
  {
    rule: 'namesake-of-other-trust-domain',
    profile: 'istio',
    shows: allowing(from('serviceAccounts: [a/web]')),
    says: /^serviceAccounts/,
    witness: /^spiffe:\/\/other\.test\/ns\/a\/sa\/web/,
    at: '4 spec.rules[0].from[0].source.serviceAccounts',
    clean: allowing(from('serviceAccounts: [a/web]')),
    cleanSetting: { profile: 'strict' },
  },
  {
    rule: 'plaintext-passes',
    shows: documents(
      allowing('[{ to: [{ operation: { paths: [/health] } }] }]'),
      peers('{ mtls: { mode: PERMISSIVE } }'),
    ),
    says: /^PERMISSIVE takes plaintext/,
    witness: /^plaintext .*GET \/health .*: allowed/,
    at: '9 spec.mtls.mode',
    clean: documents(
      allowing('[{ to: [{ operation: { paths: [/health] } }] }]'),
      peers('{ mtls: { mode: STRICT } }'),
    ),
  },
  {
    rule: 'plaintext-passes',
    profile: 'istio',
    shows: peers(
      '{ selector: { matchLabels: { app: web } }, portLevelMtls: { "9000": { mode: DISABLE } } }',
    ),
    says: /^DISABLE takes plaintext/,
    witness: /^plaintext .* {app=web}:9000 .*: allowed \(no ALLOW policy\)$/,
    at: '4 spec.portLevelMtls.9000.mode',
    clean: documents(
      peers(
        '{ selector: { matchLabels: { app: web } }, portLevelMtls: { "9000": { mode: DISABLE } } }',
      ),
      allowing(anybody),
    ),
  },
]

proves(callerRules, cases)

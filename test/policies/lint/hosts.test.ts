import { hostRules } from '../../../policies/lint/hosts.ts'
import { allowing, anybody, both, type LintCase, proves } from './found.ts'

const host = (...hosts: string[]) =>
  `[{ to: [{ operation: { hosts: ${JSON.stringify(hosts)} } }] }]`

const cases: readonly LintCase[] = [
  {
    rule: 'host-without-port-twin',
    profile: 'istio',
    shows: both(anybody, host('deny.example.com')),
    says: /^"deny\.example\.com" leaves out "deny\.example\.com:8080", which is the same host$/,
    witness: /GET \/ host deny\.example\.com:8080: allowed/,
    at: '9 spec.rules[0].to[0].operation.hosts[0]',
    clean: both(
      anybody,
      host('deny.example.com', 'deny.example.com:*', 'deny.example.com.', 'deny.example.com.:*'),
    ),
  },
  {
    rule: 'host-without-port-twin',
    profile: 'istio',
    shows: both(anybody, host('*.deny.example.com')),
    says: /leaves out "any\.deny\.example\.com:8080"/,
    witness: /host any\.deny\.example\.com:8080: allowed/,
    at: '9 spec.rules[0].to[0].operation.hosts[0]',
    // strict compares the name alone
    clean: both(anybody, host('deny.example.com', '*.deny.example.com')),
    cleanSetting: { profile: 'strict' },
  },
  {
    rule: 'host-suffix-inside-name',
    shows: allowing(host('*example.com')),
    says: /also takes "other-example\.com"/,
    witness: /host other-example\.com: allowed/,
    at: '4 spec.rules[0].to[0].operation.hosts[0]',
    clean: allowing(host('example.com', '*.example.com')),
  },
]

proves(hostRules, cases)

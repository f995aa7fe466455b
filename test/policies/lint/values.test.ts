import { valueRules } from '../../../policies/lint/values.ts'
import { allowing, anybody, both, type LintCase, proves } from './found.ts'

const to = (operation: string) => `[{ to: [{ operation: { ${operation} } }] }]`
const when = (key: string, values: string) => `[{ when: [{ key: "${key}", values: ${values} }] }]`
const from = (source: string) => `[{ from: [{ source: { ${source} } }] }]`

const cases: readonly LintCase[] = [
  {
    rule: 'deny-never-matches',
    shows: both(anybody, when('request.headers[:method]', '[delete]')),
    says: /^"delete" is no DELETE: methods are compared as sent$/,
    witness: /DELETE \/ .*: allowed/,
    at: '9 spec.rules[0].when[0].values[0]',
    clean: both(anybody, when('request.headers[:method]', '[DELETE]')),
  },
  {
    rule: 'deny-never-matches',
    profile: 'istio',
    shows: both(anybody, to('paths: [/a/../admin, /ok]')),
    says: /^"\/a\/\.\.\/admin" matches nothing: paths are compared after normalisation/,
    witness: /GET \/a\/\.\.\/admin .*: allowed/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(anybody, to('paths: [/admin, /admin/]')),
  },
  {
    rule: 'deny-never-matches',
    shows: both(anybody, when('request.headers[x-role]', '[" admin"]')),
    says: /^" admin" matches nothing: values are compared without the spaces around them$/,
    witness: /\[x-role: {2}admin\]: allowed/,
    at: '9 spec.rules[0].when[0].values[0]',
    clean: both(anybody, when('request.headers[x-role]', '[admin]')),
  },
  {
    rule: 'allow-never-matches',
    shows: allowing(to('paths: [/a//b, /a/%62]')),
    says: /"\/a\/\/b" matches nothing/,
    witness: /GET \/a\/\/b .*: denied/,
    at: '4 spec.rules[0].to[0].operation.paths[0]',
    clean: allowing(to('paths: [/a/b]')),
  },
  {
    rule: 'allow-never-matches',
    shows: allowing(from('principals: [TD/ns/a/sa/x]')),
    says: /no SPIFFE ID looks like this/,
    witness: /: refused \(400, the caller has no SPIFFE ID\)$/,
    at: '4 spec.rules[0].from[0].source.principals[0]',
    clean: allowing(from('principals: [td/ns/a/sa/x]')),
  },
  {
    rule: 'allow-never-matches',
    shows: allowing(to('hosts: [api.example.com.]')),
    says: /hosts are compared without final dot/,
    witness: /host api\.example\.com\.: denied/,
    at: '4 spec.rules[0].to[0].operation.hosts[0]',
    clean: allowing(to('hosts: [api.example.com]')),
  },
  {
    rule: 'allow-never-matches',
    shows: allowing(from('trustDomains: [Example.org]')),
    says: /trust domains have lower-case letters/,
    witness: /: refused \(400/,
    at: '4 spec.rules[0].from[0].source.trustDomains[0]',
    clean: allowing(from('trustDomains: [example.org]')),
  },
]

proves(valueRules, cases)

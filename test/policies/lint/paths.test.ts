import { pathRules } from '../../../policies/lint/paths.ts'
import { allowing, anybody, both, type LintCase, proves } from './found.ts'

const path = (...paths: string[]) =>
  `[{ to: [{ operation: { paths: ${JSON.stringify(paths)} } }] }]`
const notPath = (...paths: string[]) =>
  `[{ from: [{ source: { principals: ["*"] } }], to: [{ operation: { notPaths: ${JSON.stringify(paths)} } }] }]`

const cases: readonly LintCase[] = [
  {
    rule: 'path-without-slash-twin',
    shows: both(anybody, path('/admin')),
    says: /^"\/admin" leaves out "\/admin\/", which most programs take for the same/,
    witness: /GET \/admin\/ .*: allowed by ALLOW shop\/allow, rule 0$/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(anybody, path('/admin', '/admin/')),
  },
  {
    rule: 'path-without-slash-twin',
    shows: both(anybody, path('/admin/*')),
    says: /"\/admin\/\*" leaves out "\/admin"/,
    witness: /GET \/admin host/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(anybody, path('/admin', '/admin/*')),
  },
  {
    rule: 'path-without-slash-twin',
    shows: both(anybody, path('/a/{*}/{**}')),
    says: /leaves out "\/a\/any"/,
    witness: /GET \/a\/any host/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(anybody, path('/a/{*}/{**}', '/a/{*}')),
  },
  {
    rule: 'path-without-slash-twin',
    shows: allowing(notPath('/admin')),
    says: /"\/admin\/".*is not excepted/,
    witness: /GET \/admin\/ .*: allowed by ALLOW shop\/allow/,
    at: '4 spec.rules[0].to[0].operation.notPaths[0]',
    clean: allowing(notPath('/admin', '/admin/')),
  },
  {
    // where no ALLOW lets the twin in, nothing passes: there is nothing to say
    rule: 'path-without-slash-twin',
    shows: both(path('/admin/'), path('/admin')),
    says: /leaves out/,
    witness: /GET \/admin\//,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(path('/public'), path('/admin')),
  },
  {
    rule: 'path-without-slash-twin',
    shows: both(anybody, path('/v1.0')),
    says: /leaves out/,
    witness: /GET \/v1\.0\//,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(anybody, path('/pkg.Service/Method', '/index.html')),
  },
  {
    rule: 'path-prefix-inside-segment',
    shows: allowing(path('/public*')),
    says: /^"\/public\*" also takes "\/public-other"/,
    witness: /GET \/public-other .*: allowed/,
    at: '4 spec.rules[0].to[0].operation.paths[0]',
    clean: allowing(path('/public', '/public/*')),
  },
  {
    rule: 'path-prefix-inside-segment',
    shows: both(anybody, '[{ to: [{ operation: { notPaths: ["/public*"] } }] }]'),
    says: /also takes "\/public-other"/,
    witness: /GET \/public-other .*: allowed/,
    at: '9 spec.rules[0].to[0].operation.notPaths[0]',
    clean: both(anybody, path('/public*')),
  },
  {
    rule: 'path-passed-in-other-form',
    profile: 'istio',
    shows: both(anybody, path('/admin/x')),
    says: /passed by "\/\/admin\/x" \(a second slash\), "\/%2Fadmin\/x" \(an escaped slash\), "\/admin\/X" \(another case\), "\/admin\/x\." .* at normalisation base$/,
    witness: /GET \/\/admin\/x .*: allowed/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    clean: both(anybody, path('/admin/x')),
    cleanSetting: { profile: 'istio', mesh: { pathNormalization: 'decode-and-merge-slashes' } },
  },
  {
    rule: 'path-passed-in-other-form',
    profile: 'istio',
    mesh: { pathNormalization: 'merge-slashes' },
    shows: both(anybody, path('/admin')),
    says: /passed by "\/%2Fadmin" \(an escaped slash\)/,
    witness: /GET \/%2Fadmin/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    // strict decodes and merges always
    clean: both(anybody, path('/admin')),
    cleanSetting: { profile: 'strict' },
  },
  {
    rule: 'path-passed-in-other-form',
    profile: 'istio',
    shows: both(path('/pay/*'), path('/pay/refunds')),
    says: /passed by "\/pay\/\/refunds" \(a second slash\), "\/pay\/Refunds"/,
    witness: /GET \/pay\/\/refunds/,
    at: '9 spec.rules[0].to[0].operation.paths[0]',
    // nothing else comes in
    clean: both(path('/pay/cards'), path('/pay/refunds')),
  },
]

proves(pathRules, cases)

import { describe, expect, it } from 'vitest'
import type { RuleDocument } from '../../../policies/language/authorization.ts'
import { patternCovers, ruleCovers } from '../../../policies/lint/cover.ts'
import { shadowingRules } from '../../../policies/lint/shadowing.ts'
import { policyText } from '../../support/policy-text.ts'
import { allowing, both, documents, type LintCase, other, proves } from './found.ts'

const rule = (principal: string, ...paths: string[]) =>
  `{ from: [{ source: { principals: ["${principal}"] } }], to: [{ operation: { paths: ${JSON.stringify(paths)} } }] }`

const cases: readonly LintCase[] = [
  {
    rule: 'duplicate-rule',
    shows: documents(
      policyText(`[${rule('td/a', '/x')}]`, { name: 'one' }),
      policyText(`[${rule('td/a', '/x')}]`, { name: 'two' }),
    ),
    says: /^the same rule stands in rule 0 of shop\/one \(lint\.yaml:4\)$/,
    witness: /^spiffe:\/\/td\/a .*GET \/x .*: allowed/,
    at: '9 spec.rules[0]',
    clean: documents(
      policyText(`[${rule('td/a', '/x')}]`, { name: 'one' }),
      policyText(`[${rule('td/a', '/x')}]`, { name: 'two', namespace: 'else' }),
    ),
  },
  {
    rule: 'shadowed-rule',
    shows: allowing(`[${rule('td/a', '/x/*')}, ${rule('td/a', '/x/y', '/x/z*')}]`),
    says: /^rule 0 of shop\/allow .* matches whatever this rule matches/,
    witness: /GET \/x\/y .*: allowed/,
    at: '4 spec.rules[1]',
    clean: allowing(`[${rule('td/a', '/x/*')}, ${rule('td/a', '/x/y', '/z')}]`),
  },
  {
    // the mesh says it already; the broader one may stand later
    rule: 'shadowed-rule',
    shows: documents(
      allowing(`[${rule('td/a', '/x')}]`),
      policyText(`[${rule('td/*', '/*')}]`, { name: 'mesh', namespace: 'istio-system' }),
    ),
    says: /^rule 0 of istio-system\/mesh/,
    witness: /GET \/x/,
    at: '4 spec.rules[0]',
    clean: documents(
      allowing(`[${rule('td/a', '/x')}]`),
      other(`{ selector: { matchLabels: { app: web } }, rules: [${rule('td/*', '/*')}] }`, {
        kind: 'AuthorizationPolicy',
        name: 'some',
        namespace: 'istio-system',
      }),
    ),
  },
  {
    // a rule that asks about HTTP is none for TCP
    rule: 'shadowed-rule',
    shows: allowing(`[{ from: [{ source: { principals: [td/a] } }] }, ${rule('td/a', '/x')}]`),
    says: /^rule 0/,
    witness: /GET \/x/,
    at: '4 spec.rules[1]',
    clean: allowing(
      `[{ from: [{ source: { principals: [td/a] } }, { source: { requestPrincipals: ["*"] } }] }, { from: [{ source: { principals: [td/a] } }] }]`,
    ),
  },
  {
    rule: 'allow-under-deny',
    shows: both(`[${rule('td/a', '/x')}]`, `[${rule('td/*', '/x*')}]`),
    says: /^never allows anything: DENY rule 0 of shop\/deny/,
    witness: /^spiffe:\/\/td\/a .*GET \/x .*: denied by DENY shop\/deny/,
    at: '4 spec.rules[0]',
    clean: both(`[${rule('td/a', '/x')}]`, `[${rule('td/*', '/xy*')}]`),
  },
]

proves(shadowingRules, cases)

describe('ruleCovers', () => {
  const from = (source: object): RuleDocument => ({ from: [{ source }] })
  it.each([
    ['*', 'a*', true],
    ['a*', 'a', true],
    ['a*', '*a', false],
    ['*a', 'ba', true],
    ['*a', 'ba*', false],
    ['a', 'a*', false],
    ['a*', '*', false],
  ])('pattern %s over %s: %s', (wide, narrow, is) => {
    expect(patternCovers(wide, narrow)).toBe(is)
  })

  it.each<[string, RuleDocument, RuleDocument, boolean]>([
    ['everything covers all', {}, from({ principals: ['a'] }), true],
    [
      'a narrower field more',
      from({ principals: ['*'] }),
      from({ principals: ['a'], namespaces: ['n'] }),
      true,
    ],
    [
      'a field more in the wider',
      from({ principals: ['*'], namespaces: ['n'] }),
      from({ principals: ['a'] }),
      false,
    ],
    ['fewer exceptions', from({ notPrincipals: ['a'] }), from({ notPrincipals: ['a', 'b'] }), true],
    ['more exceptions', from({ notPrincipals: ['a', 'b'] }), from({ notPrincipals: ['a'] }), false],
    [
      'blocks',
      from({ ipBlocks: ['10.0.0.0/8'] }),
      from({ ipBlocks: ['10.1.0.0/16', '10.2.3.4'] }),
      true,
    ],
    [
      'blocks of another family',
      from({ ipBlocks: ['::/0'] }),
      from({ ipBlocks: ['10.1.0.0/16'] }),
      false,
    ],
    ['another condition', { condition: 'true' }, {}, false],
    ['the same condition', { condition: 'true' }, { condition: 'true' }, true],
    ['exempts somebody', { exceptFor: [{ source: { principals: ['a'] } }] }, {}, false],
    [
      'from and when say the same',
      { when: [{ key: 'source.principal', values: ['a', 'b'] }] },
      from({ principals: ['a'] }),
      true,
    ],
    [
      'another header',
      { when: [{ key: 'request.headers[a]', values: ['x'] }] },
      { when: [{ key: 'request.headers[b]', values: ['x'] }] },
      false,
    ],
    [
      'templates',
      { to: [{ operation: { paths: ['/a/{*}'] } }] },
      { to: [{ operation: { paths: ['/a/b'] } }] },
      true,
    ],
    [
      'deeper than a template',
      { to: [{ operation: { paths: ['/a/{*}'] } }] },
      { to: [{ operation: { paths: ['/a/b/c'] } }] },
      false,
    ],
    [
      'a prefix over a template',
      { to: [{ operation: { paths: ['/a*'] } }] },
      { to: [{ operation: { paths: ['/a/{**}'] } }] },
      true,
    ],
    [
      'tokens of anybody',
      from({ requestPrincipals: ['*'] }),
      from({ requestPrincipals: ['i/s'] }),
      true,
    ],
  ])('%s', (_, wide, narrow, is) => {
    expect(ruleCovers(wide, narrow)).toBe(is)
  })
})

import { timeRules } from '../../../policies/lint/times.ts'
import { allowing, anybody, documents, type LintCase, other, proves } from './found.ts'

const policy = (spec: string, name = 'temporary') =>
  other(spec, { kind: 'AuthorizationPolicy', name })
const denying = (end: string) =>
  policy(
    `{ action: DENY, expires: "${end}", rules: [{ to: [{ operation: { ports: ["9000"] } }] }] }`,
  )
const opening = (end: string) =>
  policy(`{ expires: "${end}", rules: [{ from: [{ source: { principals: [td/b] } }] }] }`)
const watched = (action: string) =>
  policy(
    `{ mode: shadow, action: ${action}, rules: [{ from: [{ source: { principals: [td/b] } }] }] }`,
  )

const cases: readonly LintCase[] = [
  {
    rule: 'deny-expired',
    shows: documents(denying('2029-12-31'), allowing(anybody)),
    says: /^shop\/temporary has expired \(2029-12-31\): what it denied passes$/,
    witness: /:9000 .*: allowed by ALLOW shop\/allow/,
    at: '4 spec.expires',
    clean: documents(denying('2031-01-01'), allowing(anybody)),
  },
  {
    rule: 'allow-expired',
    shows: opening('2029-12-31T12:00:00Z'),
    says: /has expired \(2029-12-31T12:00:00\.000Z\): it allows nothing/,
    witness: /^spiffe:\/\/td\/b .*: denied/,
    at: '4 spec.expires',
    clean: opening('2031-01-01'),
  },
  {
    rule: 'expires-soon',
    shows: documents(denying('2030-01-08'), allowing(anybody)),
    says: /^shop\/temporary expires soon \(2030-01-08\): from then on what it denies passes$/,
    witness: /:9000 .*: allowed/,
    at: '4 spec.expires',
    clean: documents(denying('2030-02-08'), allowing(anybody)),
  },
  {
    rule: 'expires-soon',
    shows: opening('2030-01-08'),
    says: /from then on what it allows is denied$/,
    witness: /^spiffe:\/\/td\/b .*: denied/,
    at: '4 spec.expires',
    // somebody else allows the same
    clean: documents(opening('2030-01-08'), allowing(anybody)),
  },
  {
    rule: 'only-watched',
    shows: documents(watched('DENY'), allowing(anybody)),
    says: /^shop\/temporary is only watched: it denies nothing$/,
    witness: /^spiffe:\/\/td\/b .*: allowed/,
    at: '4 spec',
    clean: documents(watched('DENY').replace('mode: shadow', 'mode: enforce'), allowing(anybody)),
  },
  {
    rule: 'only-watched',
    shows: watched('ALLOW'),
    says: /allows nothing$/,
    witness: /^spiffe:\/\/td\/b .*: denied/,
    at: '4 spec',
    // what it would allow is allowed already
    clean: documents(watched('ALLOW'), allowing(anybody)),
  },
]

proves(timeRules, cases)

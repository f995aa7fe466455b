import { generateKeyPairSync } from 'node:crypto'
import { tokenRules } from '../../../policies/lint/tokens.ts'
import { policyText } from '../../support/policy-text.ts'
import { allowing, anybody, documents, type LintCase, other, proves } from './found.ts'

const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const jwks = JSON.stringify({ keys: [publicKey.export({ format: 'jwk' })] })
const authentication = (rules: object[], name = 'jwt') =>
  other(JSON.stringify({ jwtRules: rules }), { kind: 'RequestAuthentication', name })
const known = authentication([{ issuer: 'https://a.test', jwks }])

const of = (...texts: string[]) =>
  `[{ from: [{ source: { requestPrincipals: ${JSON.stringify(texts)} } }] }]`
const when = (key: string) => `[{ when: [{ key: "${key}", values: [x] }] }]`

const cases: readonly LintCase[] = [
  {
    rule: 'token-not-verified',
    shows: allowing(of('https://a.test/bob')),
    says: /^no RequestAuthentication speaks of these workloads/,
    witness: /\[authorization: Bearer …\]: denied \(no ALLOW rule matches\)$/,
    at: '4 spec.rules[0].from[0].source.requestPrincipals',
    clean: documents(allowing(of('https://a.test/bob')), known),
  },
  {
    rule: 'token-not-verified',
    profile: 'istio',
    shows: policyText(when('request.auth.claims[group]'), { action: 'DENY' }),
    says: /request\.auth\.claims\[group\] never matches$/,
    witness: /Bearer …\]: allowed \(no ALLOW policy\)$/,
    at: '4 spec.rules[0].when[0].values',
    clean: documents(policyText(when('request.auth.claims[group]'), { action: 'DENY' }), known),
  },
  {
    rule: 'issuer-unknown',
    shows: documents(allowing(of('https://a.test/bob', 'https://b.test/bob')), known),
    says: /accepts tokens of "https:\/\/b\.test"; accepted are "https:\/\/a\.test"$/,
    witness: /refused \(401, the token is refused: nobody knows its issuer\)$/,
    at: '4 spec.rules[0].from[0].source.requestPrincipals[1]',
    clean: documents(allowing(of('https://a.test/bob', '*/bob')), known),
  },
  {
    rule: 'issuer-unknown',
    shows: documents(
      policyText(of('https://b.test/*'), { action: 'DENY', name: 'deny' }),
      allowing(anybody),
      authentication([{ issuer: 'https://a.test', jwks, fromHeaders: [{ name: 'x-jwt' }] }]),
    ),
    says: /"https:\/\/b\.test"/,
    witness: /\[x-jwt: .*refused \(401/,
    at: '4 spec.rules[0].from[0].source.requestPrincipals[0]',
    // whoever leaves the issuer open takes all
    clean: documents(
      policyText(of('https://b.test/*'), { action: 'DENY', name: 'deny' }),
      allowing(anybody),
      authentication([{ jwksUri: 'https://b.test/keys' }]),
    ),
  },
  {
    rule: 'issuer-unknown',
    shows: documents(
      allowing(of('https://b.test/*')),
      authentication([{ issuer: 'https://a.test', jwks, fromCookies: ['session'] }]),
    ),
    says: /"https:\/\/b\.test"/,
    witness: /\[cookie: session=/,
    at: '4 spec.rules[0].from[0].source.requestPrincipals[0]',
    clean: documents(allowing(of('https://a.test/*')), known),
  },
  {
    rule: 'issuer-unknown',
    shows: documents(
      allowing(of('https://b.test/*')),
      authentication([{ issuer: 'https://a.test', jwks, fromParams: ['jwt'] }]),
    ),
    says: /"https:\/\/b\.test"/,
    witness: /GET \/\?jwt=/,
    at: '4 spec.rules[0].from[0].source.requestPrincipals[0]',
    clean: documents(allowing(of('https://a.test/*')), known),
  },
  {
    rule: 'issuer-without-subject',
    shows: documents(allowing(of('https:a')), known),
    says: /^"https:a" means a token of that issuer without subject$/,
    witness: /with a token of https:a\/any .*: denied/,
    at: '4 spec.rules[0].from[0].source.requestPrincipals[0]',
    clean: documents(allowing(of('https:a/*', '*')), known),
  },
]

proves(tokenRules, cases)

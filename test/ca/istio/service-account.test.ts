import fc from 'fast-check'
import { expect, test } from 'vitest'
import { idOfServiceAccount } from '../../../ca/istio/service-account.ts'
import { hasCode } from '../../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain } from '../../../spiffe/id.ts'
import { refusalOf } from '../../support/refusal.ts'

const trustDomain = parseTrustDomain('example.org')
const idOf = (subject: string) => idOfServiceAccount(subject, trustDomain)

test('a service account is spiffe://TD/ns/NAMESPACE/sa/NAME', () => {
  expect(idOf('system:serviceaccount:shop:cart')).toBe('spiffe://example.org/ns/shop/sa/cart')
  expect(idOf('system:serviceaccount:a:b.c-d')).toBe('spiffe://example.org/ns/a/sa/b.c-d')
})

const bad = [
  '',
  'system:serviceaccount:shop',
  'system:serviceaccount:shop:',
  'system:serviceaccount::cart',
  'system:serviceaccount:shop:cart:more',
  'system:user:shop:cart',
  'System:serviceaccount:shop:cart',
  'system:serviceaccount:shop:Cart',
  'system:serviceaccount:shop:..',
  'system:serviceaccount:shop/sa/admin:x',
  'system:serviceaccount:shop.x:cart',
  'system:serviceaccount:shop:cart\n',
  `system:serviceaccount:shop:${'a'.repeat(254)}`,
]

test.each(bad)('%j is none', (subject) => {
  expect(refusalOf(() => idOf(subject))).toMatchObject({ code: 'ERR_UNTRUSTED' })
})

const part = fc.string({ unit: fc.constantFrom(...'ab1.-:/_ A%\n'), maxLength: 8 })

test('whatever is named, the ID is well-formed and has the two names as its segments', () => {
  fc.assert(
    fc.property(part, part, (ns, sa) => {
      let id: string
      try {
        id = idOf(`system:serviceaccount:${ns}:${sa}`)
      } catch (error) {
        return hasCode(error, 'ERR_UNTRUSTED')
      }
      return parseSpiffeId(id) === id && id === `spiffe://example.org/ns/${ns}/sa/${sa}`
    }),
    { numRuns: 2000 },
  )
})

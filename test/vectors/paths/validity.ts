// Path vectors: time, at each level, to the second.
import { atEachLevel, now, type Vector, vector } from '../../support/vectors.ts'

const second = 1000

export const validityVectors: readonly Vector[] = [
  vector('an ordinary path', {}, undefined),
  ...atEachLevel('expired a second ago', { notAfter: now - second }, 'expired at'),
  ...atEachLevel('valid from the next second', { notBefore: now + second }, 'not valid before'),
  ...atEachLevel('expiring in this second', { notAfter: now }, undefined, {
    openssl: 'reject',
    why: 'notAfter is inclusive (RFC 5280 §4.1.2.5); OpenSSL compares with <=',
  }),
  ...atEachLevel('valid from this second', { notBefore: now }, undefined),
  ...atEachLevel('valid past 2050', { notAfter: Date.UTC(2051, 0, 1) }, undefined),
  ...atEachLevel('valid for ever', { notAfter: Date.UTC(9999, 11, 31, 23, 59, 59) }, undefined),
  ...atEachLevel(
    'expired before it began',
    { notBefore: now + second, notAfter: now - second },
    'not valid before',
  ),
]

import { describe, expect, it } from 'vitest'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { validatePath } from '../../spiffe/path.ts'
import { hasOpenssl, opensslVerify } from '../support/openssl.ts'
import { now, threeLevels, type Vector } from '../support/vectors.ts'
import { authorityVectors } from '../vectors/paths/authorities.ts'
import { encodingVectors } from '../vectors/paths/encoding.ts'
import { otherNameVectors } from '../vectors/paths/other-names.ts'
import { searchVectors } from '../vectors/paths/search.ts'
import { signatureVectors } from '../vectors/paths/signatures.ts'
import { uriNameVectors } from '../vectors/paths/uri-names.ts'
import { validityVectors } from '../vectors/paths/validity.ts'

const groups = {
  validity: validityVectors,
  signatures: signatureVectors,
  authorities: authorityVectors,
  'URI names': uriNameVectors,
  'other names': otherNameVectors,
  encoding: encodingVectors,
  search: searchVectors,
}

/** Why a vector's path is refused; undefined when it is valid. */
function reasonOf({ chain, roots }: Vector): string | undefined {
  try {
    const [leaf, ...intermediates] = chain.map(parseCertificate)
    if (leaf === undefined) return 'an empty chain'
    const result = validatePath(leaf, intermediates, roots.map(parseCertificate), { now })
    return result.ok ? undefined : result.reason
  } catch (error) {
    if (error instanceof IdentityError && error.code === 'ERR_CERTIFICATE') return explain(error)
    throw error
  }
}

describe.each(Object.entries(groups))('X5-17 path vectors: %s', (_, vectors) => {
  it.each(vectors)('$name', (vector) => {
    const reason = reasonOf(vector)
    if (vector.reason === undefined) expect(reason).toBeUndefined()
    else expect(reason).toContain(vector.reason)
  })

  it.skipIf(!hasOpenssl())(
    'are judged the same by openssl verify -x509_strict',
    () => {
      const verdicts = opensslVerify(vectors, now)
      const surprises = vectors.flatMap(({ name, reason, difference }, i) => {
        const wanted = difference?.openssl ?? (reason === undefined ? 'accept' : 'reject')
        return verdicts[i]?.verdict === wanted ? [] : [{ name, ...verdicts[i] }]
      })
      expect(surprises).toEqual([])
    },
    120_000,
  )

  it('name a difference only where there is one', () => {
    const idle = vectors.filter(
      ({ difference, reason }) =>
        difference?.openssl === (reason === undefined ? 'accept' : 'reject'),
    )
    expect(idle.map(({ name }) => name)).toEqual([])
  })
})

describe('validatePath', () => {
  it('answers the path, leaf first and root last, whatever the order of the intermediates', () => {
    const { chain, roots } = threeLevels({})
    const [leaf, ...rest] = chain.map(parseCertificate)
    const [root] = roots.map(parseCertificate)
    if (leaf === undefined || root === undefined) throw new TypeError('no chain')
    const result = validatePath(leaf, rest.toReversed(), [root], { now })
    expect(result.ok && result.path).toEqual([leaf, ...rest, root])
  })

  it('keeps to a shorter bound when one is given', () => {
    const { chain, roots } = threeLevels({})
    const [leaf, ...rest] = chain.map(parseCertificate)
    if (leaf === undefined) throw new TypeError('no chain')
    const result = validatePath(leaf, rest, roots.map(parseCertificate), { now, longest: 0 })
    expect(result).toEqual({ ok: false, reason: 'no path to a root of the bundle' })
  })

  it('reads at most 8 intermediates', () => {
    const { chain, roots } = threeLevels({})
    const [leaf, next] = chain.map(parseCertificate)
    if (leaf === undefined || next === undefined) throw new TypeError('no chain')
    const many = Array.from({ length: 9 }, () => next)
    const result = validatePath(leaf, many, roots.map(parseCertificate), { now })
    expect(result).toEqual({ ok: false, reason: '9 intermediates (at most 8)' })
  })
})

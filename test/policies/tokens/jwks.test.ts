// Key sets of issuers: which keys count, and what makes a set one that is refused.
import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { readJwks } from '../../../policies/tokens/jwks.ts'

const ec = (change: object = {}) => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { ...publicKey.export({ format: 'jwk' }), ...change }
}
const rsa = (modulusLength: number) =>
  generateKeyPairSync('rsa', { modulusLength }).publicKey.export({ format: 'jwk' })

const setOf = (...keys: readonly object[]) => JSON.stringify({ keys })

/** The names of the keys that count; the problem of a set that is refused. */
function namesIn(text: string): readonly (string | undefined)[] | string {
  const read = readJwks(text)
  return read.ok ? read.keys.map(({ keyId }) => keyId) : read.problem
}

describe('readJwks', () => {
  it('gives keys for signatures with their name and algorithm', () => {
    const read = readJwks(setOf(ec({ kid: 'a', alg: 'ES256', use: 'sig' }), ec()))
    expect(read).toMatchObject({
      ok: true,
      keys: [{ keyId: 'a', algorithm: 'ES256' }, { key: { asymmetricKeyType: 'ec' } }],
    })
    expect(read.ok && read.keys[1]?.keyId).toBeUndefined()
  })

  it('passes over what no signature is verified with', () => {
    const others = [
      ec({ kid: 'for encryption', use: 'enc' }),
      { kid: 'of a kind to come', kty: 'XYZ' },
      { ...ec({ kid: 'off the curve' }), x: 'AAAA' },
      { ...rsa(1024), kid: 'short' },
    ]
    expect(namesIn(setOf(...others, { ...rsa(2048), kid: 'long' }))).toEqual(['long'])
    expect(namesIn(setOf(...others))).toBe('no key that signatures can be verified with')
  })

  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  it.each([
    ['a private key', setOf(privateKey.export({ format: 'jwk' })), /^a private or symmetric key/],
    ['a secret', setOf(ec(), { kty: 'oct', k: 'AAAA' }), /^a private or symmetric key/],
    ['no JSON', '{', /^no JSON$/],
    ['a member twice', '{"keys":[],"keys":[]}', /^a member of an object twice$/],
    ['no list', '{"keys":{}}', /^no JWKS/],
    ['no kind', '{"keys":[{}]}', /^no JWKS/],
    ['no keys', '{"keys":[]}', /^no key that/],
    ['more than 100', setOf(...Array.from({ length: 101 }, () => ({ kty: 'x' }))), /^no JWKS/],
    ['too long', `${' '.repeat(256 * 1024)}{}`, /^a JWKS longer than 256 KiB$/],
  ])('refuses a set with %s', (_, text, problem) => {
    expect(namesIn(text)).toMatch(problem)
  })
})

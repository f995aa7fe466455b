import {
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  type KeyPairKeyObjectResult,
  sign,
} from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { algorithms } from '../../certs-dev/certificate.ts'
import { importPublicKey, keyProblem, signatureProblem } from '../../spiffe/signature.ts'
import { refusalOf } from '../support/refusal.ts'

const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve })
const rsa = (modulusLength: number) => generateKeyPairSync('rsa', { modulusLength })
const spkiOf = ({ publicKey }: KeyPairKeyObjectResult) =>
  publicKey.export({ type: 'spki', format: 'der' })

const good = {
  prime256v1: ec('prime256v1'),
  secp384r1: ec('secp384r1'),
  secp521r1: ec('secp521r1'),
  'RSA 2048': rsa(2048),
  Ed25519: generateKeyPairSync('ed25519'),
}

const bad: Readonly<Record<string, KeyPairKeyObjectResult>> = {
  'an RSA key of 1024 bits (2048 to 8192)': rsa(1024),
  'an EC key on secp256k1': ec('secp256k1'),
  'an EC key on secp224r1': ec('secp224r1'),
  'a key of type ed448': generateKeyPairSync('ed448'),
  'a key of type x25519': generateKeyPairSync('x25519'),
  'a key of type rsa-pss': generateKeyPairSync('rsa-pss', { modulusLength: 2048 }),
}

describe('keys', () => {
  it.each(Object.entries(good))('%s is accepted', (_, pair) => {
    expect(keyProblem(pair.publicKey)).toBeUndefined()
    expect(importPublicKey(spkiOf(pair)).equals(pair.publicKey)).toBe(true)
  })

  it.each(Object.entries(bad))('refused: %s', (problem, pair) => {
    expect(keyProblem(pair.publicKey)).toBe(problem)
    expect(refusalOf(() => importPublicKey(spkiOf(pair)))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: `${problem} is not accepted`,
    })
  })

  it('refuses RSA above 8192 bits, which would cost an attacker nothing and us much', () => {
    // made by hand, as making a real one takes a minute: only the size of the modulus counts
    const size = 8256 / 8
    const n = Buffer.alloc(size, 0xff).toString('base64url')
    const jwk = { kty: 'RSA', n, e: 'AQAB' }
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    expect(keyProblem(key)).toBe('an RSA key of 8256 bits (2048 to 8192)')
  })

  it('refuses a curve that the key spells out, even when it is a known one', () => {
    const explicit = { namedCurve: 'prime256v1', paramEncoding: 'explicit' } as const
    expect(refusalOf(() => importPublicKey(spkiOf(generateKeyPairSync('ec', explicit))))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: 'a key that spells out its parameters is not accepted',
    })
  })

  it('refuses a secret key, and what is no key', () => {
    expect(keyProblem(createSecretKey(Buffer.alloc(32)))).toBe('a key of type unknown')
    const refusal = refusalOf(() => importPublicKey(Buffer.of(0x30, 0)))
    expect(refusal?.code).toBe('ERR_CERTIFICATE')
    expect(refusal?.message).toMatch(/^unreadable public key: /)
  })
})

describe('signatures', () => {
  const tbs = Buffer.from('what is signed')
  const pairs = { ecdsa: good.prime256v1, rsa: good['RSA 2048'], ed25519: good.Ed25519 }
  const strong = Object.entries(algorithms).filter(([name]) => !name.endsWith('Sha1'))
  const pairOf = (name: string) =>
    name.startsWith('rsa') ? pairs.rsa : name.startsWith('ecdsa') ? pairs.ecdsa : pairs.ed25519

  it.each(strong)('%s is believed, and only over the same bytes', (name, { identifier, hash }) => {
    const { privateKey, publicKey } = pairOf(name)
    const signature = sign(hash, tbs, privateKey)
    const signed = { tbs, signatureAlgorithm: identifier, signature }
    expect(signatureProblem(signed, publicKey)).toBeUndefined()
    expect(signatureProblem({ ...signed, tbs: Buffer.from('else') }, publicKey)).toBe(
      'a wrong signature',
    )
    expect(signatureProblem({ ...signed, signature: Buffer.alloc(0) }, publicKey)).toBe(
      'a wrong signature',
    )
  })

  it.each(strong)('%s is not believed from another kind of key', (name, { identifier }) => {
    const other = name.startsWith('rsa') ? pairs.ecdsa : pairs.rsa
    const signed = { tbs, signatureAlgorithm: identifier, signature: Buffer.alloc(64) }
    expect(signatureProblem(signed, other.publicKey)).toMatch(
      /^an? \S+ signature by another kind of key$/,
    )
  })

  it.each(['ecdsaSha1', 'rsaSha1'] as const)('%s is not believed at all', (name) => {
    const { identifier, hash } = algorithms[name]
    const { privateKey, publicKey } = pairOf(name)
    const signature = sign(hash, tbs, privateKey)
    const signed = { tbs, signatureAlgorithm: identifier, signature }
    expect(signatureProblem(signed, publicKey)).toBe('an unknown signature algorithm')
  })
})

import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { createAuthority } from '../../ca/x509.ts'
import {
  type BundleDocument,
  formatBundleDocument,
  parseBundleDocument,
} from '../../spiffe/bundle-document.ts'
import { hasCode } from '../../spiffe/errors.ts'
import { refusalOf } from '../support/refusal.ts'
import { ca, leaf } from '../support/vectors.ts'

const spki = (key: KeyObject) => new Uint8Array(key.export({ format: 'der', type: 'spki' }))
const publicKeys = [
  generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
  generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
  generateKeyPairSync('rsa', { modulusLength: 2048 }),
  generateKeyPairSync('ed25519'),
].map(({ publicKey }) => spki(publicKey))

let certificates: Uint8Array[]
beforeAll(async () => {
  const life = { notBefore: Date.now(), notAfter: Date.now() + 3_600_000 }
  const make = () => createAuthority({ trustDomain: 'td.example', ...life })
  certificates = (await Promise.all([make(), make()])).map(({ certificate }) => certificate)
})

const parse = (document: unknown) =>
  parseBundleDocument(typeof document === 'string' ? document : JSON.stringify(document), 'b.json')
const refused = (document: unknown) => refusalOf(() => parse(document))
const plain = (it: BundleDocument) => ({
  ...it,
  x509: it.x509.map((der) => Buffer.from(der)),
  jwt: it.jwt.map((key) => ({ ...key, publicKey: Buffer.from(key.publicKey) })),
  wit: it.wit.map((key) => ({ ...key, publicKey: Buffer.from(key.publicKey) })),
})

const tokenKey = fc.record({
  keyId: fc.string({ minLength: 1 }),
  publicKey: fc.constantFrom(...publicKeys),
})

describe('a bundle document', () => {
  it('TB-1 TB-2 TB-3 reads back as it was written, sequences of 64 bits included', () => {
    const bundles = fc.record({
      x509: fc
        .subarray([0, 1])
        .map((which) => which.map((i) => certificates[i] ?? new Uint8Array())),
      jwt: fc.array(tokenKey, { maxLength: 3 }),
      wit: fc.array(tokenKey, { maxLength: 3 }),
      sequence: fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { nil: undefined }),
      refreshHint: fc.option(fc.nat(), { nil: undefined }),
    })
    fc.assert(
      fc.property(bundles, (bundle) => {
        const text = formatBundleDocument(bundle)
        expect(plain(parse(text))).toEqual(plain(bundle))
        expect(JSON.parse(text).keys).toBeInstanceOf(Array)
      }),
    )
  })

  it('TB-1 may have members that nobody knows', () => {
    expect(parse({ keys: [], more: { x: [1] } })).toMatchObject({ x509: [], jwt: [], wit: [] })
  })

  it('TB-2 a sequence keeps all its digits', () => {
    expect(parse('{"keys":[],"spiffe_sequence":18446744073709551615}').sequence).toBe(
      2n ** 64n - 1n,
    )
  })

  it.each(['-1', '1.5', '"1"', 'null', '1e3', '18446744073709551616'])(
    'TB-2 TB-3 a sequence or hint of %s is refused',
    (value) => {
      for (const name of ['spiffe_sequence', 'spiffe_refresh_hint'])
        expect(refused(`{"keys":[],"${name}":${value}}`)).toEqual({
          code: 'ERR_BAD_REQUEST',
          message: `b.json: ${name} is no whole number of 64 bits`,
        })
    },
  )

  it.each([{}, { keys: null }, { keys: {} }])('TB-4 without keys it is refused: %j', (document) => {
    expect(refused(document)).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: 'b.json: keys is missing or no list',
    })
  })

  it('TB-10 a member that stands twice is refused, not the last one taken', () => {
    expect(refusalOf(() => parseBundleDocument('{"keys": [], "keys": []}', 'x.json'))).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: 'x.json: has the member "keys" twice',
    })
  })

  it('TB-4 R13 an empty list of keys is written as one', () => {
    const empty = { x509: [], jwt: [], wit: [], sequence: 3n, refreshHint: 60 }
    expect(JSON.parse(formatBundleDocument(empty))).toEqual({
      keys: [],
      spiffe_refresh_hint: 60,
      spiffe_sequence: 3,
    })
  })

  const keysOf = () => {
    const full = {
      x509: certificates,
      jwt: [],
      wit: [],
      sequence: undefined,
      refreshHint: undefined,
    }
    return JSON.parse(formatBundleDocument(full)).keys as Record<string, unknown>[]
  }

  it('TB-5 TB-8 a key of an unknown kind is left out', () => {
    const [first, second] = keysOf()
    const others = [
      { kty: 'AKP', alg: 'ML-DSA-65', use: 'x509-svid', pub: 'x' },
      { use: 'jwt-svid' },
    ]
    expect(parse({ keys: [...others, first, second] }).x509).toHaveLength(2)
  })

  it.each([undefined, 'sig', 'X509-SVID', ''])('TB-6 a key of use %j is left out', (use) => {
    const [first, second] = keysOf()
    expect(parse({ keys: [{ ...first, use }, second] }).x509).toHaveLength(1)
  })

  it('X5-22 a key of use x509-svid without a certificate is left out, the others stay', () => {
    const [first, second] = keysOf()
    const { x5c, ...without } = first ?? {}
    expect(plain(parse({ keys: [without, { ...without, x5c: [] }, second] })).x509).toEqual(
      certificates.slice(1).map((der) => Buffer.from(der)),
    )
    expect(parse({ keys: [without] }).x509).toEqual([])
  })

  it('a certificate that is no CA is refused', () => {
    const root = ca('root')
    const [der] = leaf(root)
    const x5c = [Buffer.from(der ?? '').toString('base64')]
    const message = 'b.json: keys[0].x5c is no CA certificate'
    expect(refused({ keys: [{ ...keysOf()[0], x5c }] })).toEqual({
      code: 'ERR_BAD_REQUEST',
      message,
    })
  })

  it('X5-23 of several certificates in one key the first one counts', () => {
    const [first, second] = keysOf()
    const x5c = [first?.x5c, second?.x5c, 'AA==', 7].flat()
    expect(plain(parse({ keys: [{ ...first, x5c }] })).x509).toEqual(
      certificates.slice(0, 1).map((der) => Buffer.from(der)),
    )
  })

  it('members of a key that are no text say nothing about it', () => {
    const key = { keyId: 'one', publicKey: publicKeys[0] ?? new Uint8Array() }
    const none = { x509: [], wit: [], sequence: undefined, refreshHint: undefined }
    const [jwk] = JSON.parse(formatBundleDocument({ ...none, jwt: [key] })).keys
    expect(parse({ keys: [{ ...jwk, key_ops: ['verify'], x: jwk.x }] }).jwt).toHaveLength(1)
    expect(refused({ keys: [{ ...jwk, x: [jwk.x] }] })?.message).toMatch(/is no public key/)
  })

  it('JW-15 WT-20 each key has one use, whatever else is the same', () => {
    const key = { keyId: 'same', publicKey: publicKeys[0] ?? new Uint8Array() }
    const none = { x509: [], sequence: undefined, refreshHint: undefined }
    const [jwt] = JSON.parse(formatBundleDocument({ ...none, jwt: [key], wit: [] })).keys
    const uses = (use: string) => {
      const { x509, jwt: jwts, wit } = parse({ keys: [{ ...jwt, use }] })
      return [x509, jwts, wit].map((keys) => keys.length)
    }
    expect(uses('jwt-svid')).toEqual([0, 1, 0])
    expect(uses('wit-svid')).toEqual([0, 0, 1])
    expect(uses('x509-svid')).toEqual([0, 0, 0])
    expect(uses('JWT-SVID')).toEqual([0, 0, 0])
  })

  const bad: readonly (readonly [string, unknown, RegExp])[] = [
    ['no JSON', 'x', /^b\.json: is no JSON/],
    ['a list', [], /^b\.json: is no JSON object$/],
    ['a key that is text', { keys: ['x'] }, /keys\[0\] is no JSON object$/],
    [
      'a text',
      { keys: [{ kty: 'EC', use: 'x509-svid', x5c: 'AA==' }] },
      /keys\[0\]\.x5c is no list/,
    ],
    ['null', { keys: [{ kty: 'EC', use: 'x509-svid', x5c: null }] }, /keys\[0\]\.x5c is no list/],
    ['a number', { keys: [{ kty: 'EC', use: 'x509-svid', x5c: [7] }] }, /x5c is no text$/],
    ['bad base64', { keys: [{ kty: 'EC', use: 'x509-svid', x5c: ['A'] }] }, /is no base64$/],
    ['bad DER', { keys: [{ kty: 'EC', use: 'x509-svid', x5c: ['AAAA'] }] }, /keys\[0\]\.x5c /],
    ['no kid', { keys: [{ kty: 'EC', use: 'jwt-svid' }] }, /keys\[0\]\.kid is missing/],
    ['a private key', { keys: [{ kty: 'EC', use: 'jwt-svid', kid: 'a', d: 'x' }] }, /private key/],
    ['no curve', { keys: [{ kty: 'EC', use: 'wit-svid', kid: 'a' }] }, /is no public key/],
    ['too many keys', { keys: Array(257).fill({ kty: 'EC' }) }, /more than 256 keys$/],
  ]
  it.each(bad)('with %s is refused with its place', (_, document, message) => {
    expect(refused(document)?.message).toMatch(message)
  })

  it('whatever it is, it is read or refused, never more', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          parse(text)
        } catch (error) {
          expect(hasCode(error, 'ERR_BAD_REQUEST')).toBe(true)
        }
      }),
    )
  })
})

import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { proveCsr, spendProof } from '../../ca/csr.ts'
import { bareCsr } from '../../spiffe/csr.ts'
import * as der from '../../spiffe/der-writer.ts'
import { hasCode } from '../../spiffe/errors.ts'
import { type CsrChoices, makeCsr, requestedNames } from '../support/csr.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'

const ec = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve })
const rsa = (modulusLength: number, publicExponent = 65537) =>
  generateKeyPairSync('rsa', { modulusLength, publicExponent })
const keys = ec('prime256v1')
const spkiOf = (key: KeyObject) => key.export({ format: 'der', type: 'spki' })

const refusal = (csr: Uint8Array) => refusalOf(() => proveCsr(csr))
const refused = (why: string) => ({ code: 'ERR_CSR', message: `CSR refused: ${why}` })

describe('a CSR is proven', () => {
  it.each([
    ['P-256 with SHA-256', ec('prime256v1'), 'sha256'],
    ['P-256 with SHA-512', ec('prime256v1'), 'sha512'],
    ['P-384 with SHA-384', ec('secp384r1'), 'sha384'],
    ['RSA 2048 with SHA-256', rsa(2048), 'sha256'],
    ['RSA 3072 with SHA-384', rsa(3072), 'sha384'],
    ['RSA 4096 with SHA-512', rsa(4096), 'sha512'],
  ] as const)('by its own key: %s', (_, pair, hash) => {
    const { publicKey } = proveCsr(makeCsr(pair, { hash }))
    expect(Buffer.from(publicKey)).toEqual(spkiOf(pair.publicKey))
  })

  it('as our agents and as the openssl command write it', () => {
    expect(Buffer.from(proveCsr(bareCsr(keys)).publicKey)).toEqual(spkiOf(keys.publicKey))
    using folder = testFolder()
    const key = join(folder.path, 'key.pem')
    const options = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      key,
    ]
    const subject = ['-subj', '/C=US/O=SPIRE', '-addext', 'subjectAltName=URI:spiffe://evil.test/x']
    const csr = execFileSync(
      'openssl',
      ['req', '-new', '-outform', 'DER', ...options, ...subject],
      {
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    )
    const spki = execFileSync('openssl', ['pkey', '-in', key, '-pubout', '-outform', 'DER'])
    expect(Buffer.from(proveCsr(csr).publicKey)).toEqual(spki)
  })

  it('to nothing but a public key: what it asks for is not read', () => {
    const proven = proveCsr(
      makeCsr(keys, { attributes: [requestedNames([0x86, 'spiffe://example.org/admin'])] }),
    )
    expect(Object.keys(proven)).toEqual(['publicKey'])
  })

  it('once: a spent or a forged proof is worth nothing', () => {
    const proven = proveCsr(makeCsr(keys))
    spendProof(proven)
    const message = 'a proven CSR that is forged or already spent'
    expect(() => spendProof(proven)).toThrow(new TypeError(message))
    const forged = { ...proveCsr(makeCsr(keys)) }
    expect(() => spendProof(forged)).toThrow(new TypeError(message))
  })

  it('with bytes of its own: the sender cannot change them afterwards', () => {
    const csr = makeCsr(keys)
    const { publicKey } = proveCsr(csr)
    csr.fill(0)
    expect(Buffer.from(publicKey)).toEqual(spkiOf(keys.publicKey))
  })
})

describe('R18 a CSR is refused', () => {
  const notItsOwn = 'its signature is not by its own key'

  it('R18 when another key signed it', () => {
    const csr = makeCsr(keys, { signingKey: ec('prime256v1').privateKey })
    expect(refusal(csr)).toEqual(refused(notItsOwn))
  })

  it('R18 when one bit of its signature or of what is signed differs', () => {
    const csr = makeCsr(keys)
    for (const at of [csr.length - 1, csr.indexOf(spkiOf(keys.publicKey)) - 1]) {
      const changed = Buffer.from(csr)
      changed.writeUInt8(changed.readUInt8(at) ^ 1, at)
      expect(refusal(changed)?.code).toBe('ERR_CSR')
    }
    const signature = Buffer.from(csr)
    signature.writeUInt8(signature.readUInt8(csr.length - 1) ^ 1, csr.length - 1)
    expect(refusal(signature)).toEqual(refused(notItsOwn))
  })

  it('R18 when the signature is by a key of another kind', () => {
    const csr = makeCsr(keys, { signingKey: rsa(2048).privateKey })
    expect(refusal(csr)).toEqual(refused('a signature algorithm that is not of its key'))
  })
})

describe('a CSR is refused for its key', () => {
  const foreign = 'a key that is neither P-256, P-384 nor RSA'
  const table: readonly (readonly [string, Buffer, string])[] = [
    ['Ed25519', makeCsr(generateKeyPairSync('ed25519')), foreign],
    ['P-521', makeCsr(ec('secp521r1')), foreign],
    ['secp256k1', makeCsr(ec('secp256k1')), foreign],
    ['RSA-PSS', makeCsr(generateKeyPairSync('rsa-pss', { modulusLength: 2048 })), foreign],
    ['RSA 1024', makeCsr(rsa(1024)), 'an RSA key of 1024 bits (2048 to 4096) is not accepted'],
    ['RSA 2047', makeCsr(rsa(2047)), 'an RSA key of 2047 bits (2048 to 4096) is not accepted'],
    ['RSA 4104', makeCsr(rsa(4104)), 'an RSA key of 4104 bits (2048 to 4096) is not accepted'],
    ['RSA with exponent 3', makeCsr(rsa(2048, 3)), 'an RSA key with exponent 3 is not accepted'],
  ]
  it.each(table)('%s', (_, csr, why) => expect(refusal(csr)).toEqual(refused(why)))

  const withSpki = (spki: Uint8Array) => refusal(makeCsr(keys, { spki }))
  const point = spkiOf(keys.publicKey).subarray(-65)
  const p256 = der.sequence(der.oid('1.2.840.10045.2.1'), der.oid('1.2.840.10045.3.1.7'))

  it('a compressed point', () => {
    const compressed = Buffer.concat([
      Buffer.of(2 + (point.readUInt8(64) & 1)),
      point.subarray(1, 33),
    ])
    const spki = der.sequence(p256, der.bitString(compressed))
    expect(withSpki(spki)).toEqual(refused('a point that is not uncompressed is not accepted'))
  })

  it('a point that is not on the curve', () => {
    const off = Buffer.from(point)
    off.writeUInt8(off.readUInt8(64) ^ 1, 64)
    const found = withSpki(der.sequence(p256, der.bitString(off)))
    expect(found?.code).toBe('ERR_CSR')
    expect(found?.message).toMatch(/^CSR refused: an unreadable public key/)
  })

  it('encodings that OpenSSL takes and DER forbids', () => {
    const bits = der.bitString(point)
    const longLength = Buffer.concat([Buffer.of(0x03, 0x81, 0x42), bits.subarray(2)])
    const unused = Buffer.concat([Buffer.of(0x03, 0x42, 0x01), point])
    for (const [form, why] of [
      [longLength, 'a length not in its shortest form at byte'],
      [unused, 'a bit string with unused bits at byte'],
    ] as const) {
      const found = withSpki(der.sequence(p256, form))
      expect(found?.code).toBe('ERR_CSR')
      expect(found?.message).toContain(`CSR refused: it is not well-formed DER: ${why}`)
    }
  })
})

describe('a CSR is refused for its form', () => {
  const malformed = (csr: Uint8Array) => {
    const found = refusal(csr)
    expect(found?.code).toBe('ERR_CSR')
    expect(found?.message).toMatch(/^CSR refused: it is not well-formed DER/)
  }
  const good = makeCsr(keys)
  const choices: readonly (readonly [string, CsrChoices])[] = [
    ['of another version', { version: 1 }],
    ['with a field behind the attributes', { extra: [der.sequence()] }],
    ['with attributes that are no DER', { attributes: [Buffer.of(0x30, 0x05)] }],
    ['with 65 attributes', { attributes: Array.from({ length: 65 }, () => der.sequence()) }],
  ]
  it.each(choices)('%s', (_, choice) => malformed(makeCsr(keys, choice)))

  it('trailing bytes', () => malformed(Buffer.concat([good, Buffer.of(0)])))
  it('nothing, and what is no DER at all', () => {
    for (const csr of [Buffer.of(), Buffer.from('hello'), Buffer.of(0x30, 0x80, 0, 0)])
      malformed(csr)
  })
  it('cut anywhere', () => {
    for (let at = 0; at < good.length; at++) malformed(good.subarray(0, at))
  })

  it('an unknown signature algorithm', () => {
    const sha1 = der.sequence(der.oid('1.2.840.10045.4.1'))
    const found = refusal(makeCsr(keys, { algorithm: sha1 }))
    expect(found).toEqual(refused('a signature algorithm that is not of its key'))
  })

  it('16 KiB and a byte, before it is parsed', () => {
    const huge = Buffer.alloc(16 * 1024 + 1)
    expect(refusal(huge)).toEqual(refused('16385 bytes (at most 16384)'))
    malformed(huge.subarray(1))
  })
})

describe('whatever is done to a good CSR', () => {
  it('it is refused as ERR_CSR, or proves the same key', () => {
    const csr = makeCsr(keys)
    const edit = fc.record({ at: fc.nat(csr.length - 1), byte: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
        const changed = Buffer.from(csr)
        for (const { at, byte } of edits) changed.writeUInt8(byte, at)
        try {
          expect(Buffer.from(proveCsr(changed).publicKey)).toEqual(spkiOf(keys.publicKey))
          // nothing but the old bytes carries the old signature
          expect(changed).toEqual(csr)
        } catch (error) {
          if (!hasCode(error, 'ERR_CSR')) throw error
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('a key whose encoding was changed and signed anew is refused, or is that encoding', () => {
    const spki = spkiOf(keys.publicKey)
    fc.assert(
      fc.property(fc.nat(spki.length - 1), fc.nat(255), (at, byte) => {
        const changed = Buffer.from(spki)
        changed.writeUInt8(byte, at)
        const isSame = changed.equals(spki)
        const found = refusal(makeCsr(keys, { spki: changed }))
        expect(found?.code).toBe(isSame ? undefined : 'ERR_CSR')
      }),
      { numRuns: 1000 },
    )
  })
})

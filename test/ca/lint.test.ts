import { beforeAll, describe, expect, it } from 'vitest'
import type { Authority } from '../../ca/authorities/authorities.ts'
import type { Signing } from '../../ca/authorities/slot.ts'
import { lintLeaf } from '../../ca/lint.ts'
import { type LeafFields, leafTbs } from '../../ca/profile.ts'
import { childrenOf, encodedOf, parseDer } from '../../spiffe/der.ts'
import * as der from '../../spiffe/der-writer.ts'
import { leafFields, testSigner } from '../support/leaf.ts'
import { refusalOf } from '../support/refusal.ts'

const now = Date.UTC(2031, 4, 17, 12)
let signer: Signing<Authority>
let granted: LeafFields
let tbs: Buffer
beforeAll(async () => {
  signer = await testSigner(now)
  granted = leafFields(signer, now, { dnsNames: ['a.example', 'b.example'] })
  tbs = leafTbs(granted)
})

const brokenBy = (bytes: Uint8Array, fields = granted) => refusalOf(() => lintLeaf(bytes, fields))
const broken = (rule: string) => ({
  code: 'ERR_LINT',
  message: `a leaf for spiffe://example.org/ns/default/sa/payments was not signed: broken rule "${rule}"`,
})

/** The same with its nth part (version 0, subject 5, extensions 7) replaced, or with more behind. */
function withPart(at: number, part: Uint8Array): Buffer {
  const parts: Uint8Array[] = childrenOf(parseDer(tbs)).map(encodedOf)
  parts[at] = part
  return der.sequence(...parts)
}

/** The same with one run of bytes, which occurs exactly once, replaced by another of its length. */
function swapped(from: string, to: string): Buffer {
  const text = tbs.toString('hex')
  expect(text.split(from)).toHaveLength(2)
  return Buffer.from(text.replace(from, to), 'hex')
}

describe('the linter', () => {
  it('lets pass what the profile wrote', () => {
    expect(brokenBy(tbs)).toBe(undefined)
  })

  const differing: readonly (readonly [string, string, () => Partial<LeafFields>])[] = [
    [
      'serial as reserved, positive, at least 64 bits',
      'another serial',
      () => ({ serial: Buffer.alloc(16, 0x41) }),
    ],
    ['issuer of the active authority', 'another issuer', () => ({ issuer: der.sequence() })],
    [
      'validity as granted, not reversed',
      'an earlier start',
      () => ({ notBefore: granted.notBefore - 1000 }),
    ],
    [
      'validity as granted, not reversed',
      'a later end',
      () => ({ notAfter: granted.notAfter + 1000 }),
    ],
    [
      'validity as granted, not reversed',
      'an end before the start',
      () => ({ notAfter: granted.notBefore }),
    ],
    [
      'public key as proven',
      'another key',
      () => ({ publicKey: leafFields(signer, now).publicKey }),
    ],
    ['key identifiers as granted', 'another key id', () => ({ subjectKeyId: Buffer.alloc(20, 1) })],
    [
      'key identifiers as granted',
      'another authority key id',
      () => ({ authorityKeyId: Buffer.alloc(20, 1) }),
    ],
    [
      'critical SAN with the granted names and no other',
      'another ID',
      () => ({ spiffeId: 'spiffe://example.org/ns/default/sa/paymentz' }),
    ],
    [
      'critical SAN with the granted names and no other',
      'a DNS name more',
      () => ({ dnsNames: ['a.example', 'b.example', 'c.example'] }),
    ],
    [
      'critical SAN with the granted names and no other',
      'a DNS name less',
      () => ({ dnsNames: ['a.example'] }),
    ],
    [
      'critical SAN with the granted names and no other',
      'a DNS name with a comma instead of two',
      () => ({ dnsNames: ['a.example,dns:b.example'] }),
    ],
  ]
  it.each(differing)('"%s": %s', (rule, _, change) => {
    expect(brokenBy(leafTbs({ ...granted, ...change() }))).toEqual(broken(rule))
  })

  it('"serial as reserved, positive, at least 64 bits": a short and a negative one', () => {
    const short = { ...granted, serial: Buffer.alloc(7, 0x41) }
    expect(brokenBy(leafTbs(short), short)).toEqual(
      broken('serial as reserved, positive, at least 64 bits'),
    )
    const serial = Buffer.alloc(16, 0xc1)
    const bytes = withPart(1, der.element(0x02, serial))
    const found = brokenBy(bytes, { ...granted, serial })
    expect(found).toEqual(broken('serial as reserved, positive, at least 64 bits'))
  })

  it('"version 3, signed by the algorithm of the profile"', () => {
    const rule = broken('version 3, signed by the algorithm of the profile')
    expect(brokenBy(swapped('a003020102', 'a003020101'))).toEqual(rule)
    const sha384 = der.sequence(der.oid('1.2.840.10045.4.3.3'))
    expect(brokenBy(withPart(2, sha384))).toEqual(rule)
  })

  it('"empty subject"', () => {
    const subject = der.sequence(
      der.set(der.sequence(der.oid('2.5.4.3'), der.element(0x0c, Buffer.from('x')))),
    )
    expect(brokenBy(withPart(5, subject))).toEqual(broken('empty subject'))
  })

  it('"the extensions of a leaf and no other"', () => {
    const rule = broken('the extensions of a leaf and no other')
    const [list] = childrenOf(childrenOf(parseDer(tbs))[7] ?? parseDer(tbs))
    const extensions = childrenOf(list ?? parseDer(tbs)).map(encodedOf)
    const policies = der.extension('2.5.29.32', der.sequence(), { critical: false })
    const wrapped = (...all: readonly Uint8Array[]) =>
      withPart(7, der.element(0xa3, der.sequence(...all)))
    expect(brokenBy(wrapped(...extensions, policies)), 'one more').toEqual(rule)
    expect(brokenBy(wrapped(...extensions.slice(1))), 'one less').toEqual(rule)
    const [first = policies] = extensions
    expect(brokenBy(wrapped(first, ...extensions)), 'one twice').toEqual(rule)
    expect(brokenBy(wrapped(first, first, ...extensions.slice(2))), 'one instead').toEqual(rule)
    expect(brokenBy(wrapped(...extensions))).toBe(undefined)
  })

  const swaps: readonly (readonly [string, string, string, string])[] = [
    ['critical key usage digitalSignature alone', 'keyCertSign', '03020780', '03020204'],
    [
      'critical key usage digitalSignature alone',
      'not critical',
      '300e0603551d0f0101ff0404',
      '300e0603551d0f0101000404',
    ],
    ['server and client purpose', 'another purpose', '2b06010505070302', '2b06010505070303'],
  ]
  it.each(swaps)('"%s": %s', (rule, _, from, to) => {
    expect(brokenBy(swapped(from, to))).toEqual(broken(rule))
  })

  it('"no CA"', () => {
    const bytes = tbs
      .toString('hex')
      .replace('0603551d130101ff04023000', '0603551d130101ff04020500')
    expect(brokenBy(Buffer.from(bytes, 'hex'))).toEqual(broken('no CA'))
  })

  it('"critical SAN …": not critical', () => {
    const parts = childrenOf(parseDer(tbs)).map(encodedOf)
    const [list] = childrenOf(parseDer(parts[7] ?? tbs, 0xa3))
    const extensions = childrenOf(list ?? parseDer(tbs)).map(encodedOf)
    const [id, , value] = childrenOf(parseDer(extensions.at(-1) ?? tbs)).map(encodedOf)
    const san = der.sequence(id ?? tbs, value ?? tbs)
    const bytes = withPart(7, der.element(0xa3, der.sequence(...extensions.slice(0, -1), san)))
    expect(brokenBy(bytes)).toEqual(broken('critical SAN with the granted names and no other'))
  })

  it('what is no TBSCertificate at all', () => {
    for (const bytes of [Buffer.of(), tbs.subarray(0, -1), Buffer.concat([tbs, Buffer.of(0)])]) {
      const found = brokenBy(bytes)
      expect(found?.code).toBe('ERR_LINT')
      expect(found?.message).toContain('broken rule "well-formed DER"')
    }
  })

  it('no single changed byte goes unnoticed', () => {
    const unnoticed = [...tbs.keys()].filter((at) => {
      const changed = Buffer.from(tbs)
      changed.writeUInt8(changed.readUInt8(at) ^ 0x01, at)
      return brokenBy(changed) === undefined
    })
    expect(unnoticed).toEqual([])
  })
})

import 'reflect-metadata'
import { X509Certificate } from 'node:crypto'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  KeyUsagesExtension,
  X509Certificate as PeculiarCertificate,
} from '@peculiar/x509'
import { describe, expect, it } from 'vitest'
import { algorithms, commonName, distinguishedName } from '../../certs-dev/certificate.ts'
import {
  basicConstraints,
  extendedKeyUsage,
  generalName,
  subjectAltName,
} from '../../certs-dev/extensions.ts'
import {
  extensionOids,
  fingerprintOf,
  hasUsage,
  keyUsages,
  parseCertificate,
  serialOf,
  splitDer,
} from '../../spiffe/certificate.ts'
import { element, integer, oid, sequence, time } from '../../spiffe/der-writer.ts'
import { refusalOf } from '../support/refusal.ts'
import { ca, leaf, now } from '../support/vectors.ts'

const first = (ders: readonly Buffer[]) => ders[0] ?? Buffer.alloc(0)
const root = ca('root', { pathLength: 3 })
const subject = distinguishedName(['2.5.4.3', 'a leaf'])
const names = [
  generalName.uri('spiffe://example.org/workload'),
  generalName.dns('a.example'),
  generalName.email('a@example'),
  generalName.ip(10, 0, 0, 1),
]
const extensions = { subjectAltName: subjectAltName(names) }
const own = first(leaf(root, { subject, extensions }))

describe('a certificate', () => {
  it('is read as Node reads it', () => {
    for (const der of [root.certificate, own]) {
      const it = parseCertificate(der)
      const other = new X509Certificate(der)
      expect(it.serial).toBe(other.serialNumber.toLowerCase())
      expect(it.notBefore).toBe(other.validFromDate.getTime())
      expect(it.notAfter).toBe(other.validToDate.getTime())
      expect(it.isCa).toBe(other.ca)
      expect(fingerprintOf(der)).toBe(other.fingerprint256.replaceAll(':', '').toLowerCase())
      const spki = other.publicKey.export({ type: 'spki', format: 'der' })
      expect(Buffer.from(it.publicKey)).toEqual(spki)
    }
    const uri = new X509Certificate(own).subjectAltName
    expect(uri).toContain('URI:spiffe://example.org/workload')
  })

  it('is read as @peculiar/x509 reads it', () => {
    for (const der of [root.certificate, own]) {
      const it = parseCertificate(der)
      const other = new PeculiarCertificate(der)
      expect(Buffer.from(it.issuer)).toEqual(Buffer.from(other.issuerName.toArrayBuffer()))
      expect(Buffer.from(it.subject)).toEqual(Buffer.from(other.subjectName.toArrayBuffer()))
      expect(Buffer.from(it.publicKey)).toEqual(Buffer.from(other.publicKey.rawData))
      expect(it.extensions.size).toBe(other.extensions.length)
      for (const { type, critical, value } of other.extensions) {
        expect(it.extensions.get(type)?.critical, type).toBe(critical)
        expect(Buffer.from(it.extensions.get(type)?.value ?? []), type).toEqual(Buffer.from(value))
      }
      const basic = other.getExtension(BasicConstraintsExtension)
      expect([it.isCa, it.pathLength]).toEqual([basic?.ca ?? false, basic?.pathLength])
      // the same bits in the same places: bit 0 of the standard is the lowest in both
      expect(it.keyUsage).toBe(Number(other.getExtension(KeyUsagesExtension)?.usages))
      expect(it.extendedKeyUsage).toEqual(other.getExtension(ExtendedKeyUsageExtension)?.usages)
    }
  })

  it('gives its names in order, each kind as such', () => {
    expect(parseCertificate(own).names).toMatchObject([
      { kind: 'uri', value: 'spiffe://example.org/workload' },
      { kind: 'dns', value: 'a.example' },
      { kind: 'email', value: 'a@example' },
      { kind: 'ip' },
    ])
    const bare = first(leaf(root, { extensions: { subjectAltName: null } }))
    expect(parseCertificate(bare)).toMatchObject({ names: [], hasSubject: false })
    expect(parseCertificate(own).hasSubject).toBe(true)
  })

  it('tells absent extensions from empty ones', () => {
    const none = parseCertificate(
      first(leaf(root, { extensions: { keyUsage: null, extendedKeyUsage: null } })),
    )
    expect([none.keyUsage, none.extendedKeyUsage, none.nameConstraints]).toEqual([
      undefined,
      undefined,
      undefined,
    ])
    expect(hasUsage(none, keyUsages.digitalSignature)).toBe(false)
    const empty = first(leaf(root, { extensions: { extendedKeyUsage: extendedKeyUsage([]) } }))
    expect(parseCertificate(empty).extendedKeyUsage).toEqual([])
    const it = parseCertificate(root.certificate)
    expect(hasUsage(it, keyUsages.keyCertSign)).toBe(true)
    expect(hasUsage(it, keyUsages.cRLSign)).toBe(true)
    expect(hasUsage(it, keyUsages.digitalSignature)).toBe(false)
  })

  it('signs exactly its tbs part', () => {
    const it = parseCertificate(own)
    expect(own.indexOf(Buffer.from(it.tbs))).toBe(4)
    expect(own.includes(Buffer.from(it.signature))).toBe(true)
  })
})

describe('serials', () => {
  it('are lower-case hex without the sign byte', () => {
    expect(serialOf(Buffer.of(0, 0xab))).toBe('ab')
    expect(serialOf(Buffer.of(0, 0, 1))).toBe('01')
    expect(serialOf(Buffer.of(0))).toBe('00')
    expect(serialOf(Buffer.of(0x10, 0))).toBe('1000')
  })

  it('are never negative, or two numbers would share one', () => {
    const serial = Buffer.alloc(16, 0x11)
    const der = first(leaf(root, { serial }))
    const at = der.indexOf(serial)
    der.writeUInt8(0x91, at)
    expect(refusalOf(() => parseCertificate(der))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: `malformed certificate: a serial that is negative or longer than 20 bytes at byte ${at - 2}`,
    })
  })
})

describe('a certificate that is put together wrongly', () => {
  const version = element(0xa0, integer(Buffer.of(2)))
  const algorithm = algorithms.ecdsaSha256.identifier
  const name = commonName('a')
  const [from, to] = [time(now), time(now + 1000)]
  const validity = sequence(from, to)
  const key = root.publicKey.export({ type: 'spki', format: 'der' })
  const list = element(0xa3, sequence(basicConstraints()))
  const signature = element(3, Buffer.of(0, 1))
  const serial = integer(Buffer.of(1))
  const build = (...tbs: readonly Buffer[]) => sequence(sequence(...tbs), algorithm, signature)
  const usual = [version, serial, algorithm, name, validity, name, key] as const

  it('is read when it is put together rightly, with unique identifiers or without extensions', () => {
    const identifiers = [element(0x81, Buffer.of(0, 1)), element(0x82, Buffer.of(0, 1))] as const
    expect(parseCertificate(build(...usual, list)).isCa).toBe(true)
    expect(parseCertificate(build(...usual, ...identifiers, list)).isCa).toBe(true)
    expect(parseCertificate(build(...usual)).isCa).toBe(false)
  })

  it.each<[string, Buffer, string]>([
    ['unknown fields', build(...usual, element(0xa4)), 'unknown or misplaced fields'],
    [
      'misplaced fields',
      build(...usual, list, element(0x81, Buffer.of(0))),
      'unknown or misplaced',
    ],
    ['extensions twice', build(...usual, list, list), 'unknown or misplaced fields'],
    [
      'no version',
      build(serial, algorithm, name, validity, name, key, list),
      'no version 3 certificate',
    ],
    [
      'two numbers as version',
      build(element(0xa0, integer(Buffer.of(2)), serial), ...usual.slice(1)),
      'trailing bytes',
    ],
    ['no key', build(...usual.slice(0, 6)), 'a missing element of tag 0x30'],
    [
      'three times',
      build(version, serial, algorithm, name, sequence(from, to, to), name, key),
      'a malformed validity',
    ],
    [
      'one time',
      build(version, serial, algorithm, name, sequence(from), name, key),
      'a missing element',
    ],
    [
      'an empty list of extensions',
      build(...usual, element(0xa3, sequence())),
      'an empty list of extensions',
    ],
    [
      'two lists of extensions',
      build(...usual, element(0xa3, sequence(), sequence())),
      'trailing bytes',
    ],
    [
      'two algorithms',
      sequence(sequence(...usual, list), sequence(oid('1.2.3')), signature),
      'two different signature algorithms',
    ],
    [
      'a fourth part',
      sequence(sequence(...usual, list), algorithm, signature, signature),
      'a malformed certificate',
    ],
    ['no signature', sequence(sequence(...usual, list), algorithm), 'a missing element of tag 0x3'],
    [
      'a signature of odd bits',
      sequence(sequence(...usual, list), algorithm, element(3, Buffer.of(1, 2))),
      'a bit string with unused bits',
    ],
    ['nothing', sequence(), 'a missing element of tag 0x30'],
  ])('%s', (_, der, message) => {
    const refusal = refusalOf(() => parseCertificate(der))
    expect(refusal?.code).toBe('ERR_CERTIFICATE')
    expect(refusal?.message).toMatch(/^malformed certificate: /)
    expect(refusal?.message).toContain(message)
  })

  it('refuses 64 KiB and a byte before reading', () => {
    expect(refusalOf(() => parseCertificate(Buffer.alloc(65_537)))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: 'a certificate of 65537 bytes (at most 65536)',
    })
    expect(refusalOf(() => parseCertificate(Buffer.alloc(65_536)))?.message).toContain('malformed')
  })
})

describe('concatenated certificates', () => {
  it('are split, however many, up to a bound', () => {
    const three = Buffer.concat([own, root.certificate, own])
    expect(splitDer(three).map((it) => Buffer.from(it))).toEqual([own, root.certificate, own])
    expect(splitDer(Buffer.alloc(0))).toEqual([])
    expect(refusalOf(() => splitDer(three, 2))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: expect.stringContaining('malformed list of certificates: more than 2 certificates'),
    })
  })

  it('refuse what is no sequence', () => {
    expect(refusalOf(() => splitDer(Buffer.of(4, 0)))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: 'malformed list of certificates: tag 0x4 instead of 0x30 at byte 0',
    })
  })
})

describe('object identifiers of extensions', () => {
  it('are those of RFC 5280', () => {
    const it = new PeculiarCertificate(own)
    expect(it.getExtension(extensionOids.subjectAltName)).not.toBeNull()
    expect(it.notBefore.getTime()).toBeLessThan(now)
  })
})

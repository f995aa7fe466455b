import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  childrenOf,
  contentOf,
  integerOf,
  namedBitsOf,
  oidOf,
  parseDer,
  smallIntegerOf,
  tags,
  timeOf,
  wholeBitsOf,
} from '../../spiffe/der.ts'
import {
  bitString,
  element,
  extension,
  integer,
  namedBits,
  octetString,
  oid,
  sequence,
  set,
  time,
} from '../../spiffe/der-writer.ts'
import { hasOpenssl } from '../support/openssl.ts'

const bytes = fc.uint8Array({ maxLength: 400 })

describe('what the writer writes, the reader reads', () => {
  it('for elements of any length', () => {
    for (const length of [0, 1, 127, 128, 255, 256, 65535, 65536, 16_777_216]) {
      const content = Buffer.alloc(length, 0xab)
      const it = parseDer(octetString(content), tags.octetString)
      expect(it.end - it.body).toBe(length)
      expect(Buffer.compare(contentOf(it), content)).toBe(0)
    }
  })

  it('for sequences of parts', () => {
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 20 }), (parts) => {
        const it = parseDer(sequence(...parts.map(octetString)))
        expect(childrenOf(it).map((part) => [...contentOf(part)])).toEqual(parts.map((p) => [...p]))
      }),
    )
  })

  it('for integers, in the shortest form and never negative', () => {
    fc.assert(
      fc.property(bytes, (magnitude) => {
        const content = integerOf(parseDer(integer(magnitude), tags.integer))
        const number = (it: Uint8Array) => BigInt(`0x0${Buffer.from(it).toString('hex')}`)
        expect(number(content)).toBe(number(magnitude))
        expect(content[0]).toBeLessThan(0x80)
      }),
    )
    expect(integer(Buffer.alloc(0)).toString('hex')).toBe('020100')
    expect(integer(Buffer.alloc(3)).toString('hex')).toBe('020100')
    expect(smallIntegerOf(parseDer(integer(Buffer.of(0, 0, 128)), tags.integer))).toBe(128)
  })

  it('for object identifiers', () => {
    const arc = fc.nat({ max: Number.MAX_SAFE_INTEGER - 80 })
    const dotted = fc.oneof(
      fc.tuple(fc.constantFrom(0, 1), fc.nat(39), fc.array(arc, { maxLength: 6 })),
      fc.tuple(fc.constant(2), arc, fc.array(arc, { maxLength: 6 })),
    )
    fc.assert(
      fc.property(dotted, ([top, second, rest]) => {
        const text = [top, second, ...rest].join('.')
        expect(oidOf(parseDer(oid(text), tags.oid))).toBe(text)
      }),
    )
  })

  it('for named bits', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(15)), (positions) => {
        const wanted = positions.reduce((sum, bit) => sum | (1 << bit), 0)
        expect(namedBitsOf(parseDer(namedBits(positions), tags.bitString))).toBe(wanted)
      }),
    )
  })

  it('for times of a second, between 1950 and 9999', () => {
    const at = fc.integer({ min: Date.UTC(1950, 0, 1) / 1000, max: Date.UTC(9999, 11, 31) / 1000 })
    fc.assert(
      fc.property(at, (seconds) => {
        const written = time(seconds * 1000 + 999)
        const isUtc = new Date(seconds * 1000).getUTCFullYear() < 2050
        const tag = isUtc ? tags.utcTime : tags.generalizedTime
        expect(timeOf(parseDer(written, tag))).toBe(seconds * 1000)
      }),
    )
    expect(
      time(Date.UTC(1949, 11, 31))
        .subarray(2)
        .toString(),
    ).toBe('19491231000000Z')
  })

  it('for bit strings', () => {
    fc.assert(
      fc.property(bytes, (content) => {
        expect([...wholeBitsOf(parseDer(bitString(content), tags.bitString))]).toEqual([...content])
      }),
    )
  })
})

describe('extensions', () => {
  it('never write FALSE', () => {
    const value = Buffer.of(5, 0)
    expect(extension('1.2.3', value, { critical: true }).toString('hex')).toBe(
      '300b06022a030101ff04020500',
    )
    expect(extension('1.2.3', value, { critical: false }).toString('hex')).toBe(
      '300806022a0304020500',
    )
  })
})

describe.skipIf(!hasOpenssl())('openssl asn1parse', () => {
  it('sees what was written', () => {
    const der = sequence(
      oid('1.2.840.10045.4.3.2'),
      integer(Buffer.of(0x81)),
      set(element(tags.utf8String, Buffer.from('ü'))),
      time(Date.UTC(2051, 0, 1)),
      namedBits([0, 8]),
    )
    const text = execFileSync('openssl', ['asn1parse', '-inform', 'DER'], { input: der }).toString()
    const seen = text.split('\n').map((line) => line.replace(/^.*?(cons|prim): /, '').trim())
    expect(seen.filter((line) => line !== '')).toEqual([
      'SEQUENCE',
      expect.stringContaining('ecdsa-with-SHA256'),
      expect.stringMatching(/^INTEGER +:81$/),
      'SET',
      expect.stringContaining('UTF8STRING'),
      expect.stringMatching(/^GENERALIZEDTIME +:20510101000000Z$/),
      'BIT STRING',
    ])
  })
})

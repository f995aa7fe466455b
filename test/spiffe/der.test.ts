import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  booleanOf,
  childrenOf,
  contentOf,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  namedBitsOf,
  oidOf,
  onlyChildOf,
  parseDer,
  readElement,
  smallIntegerOf,
  tags,
  timeOf,
  wholeBitsOf,
} from '../../spiffe/der.ts'
import { refusalOf } from '../support/refusal.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
/** The one element in `text`, whatever its tag. */
const element = (text: string): Element => {
  const bytes = hex(text)
  return parseDer(bytes, bytes[0])
}
const refusedBy = (read: (it: Element) => unknown) => (text: string) =>
  refusalOf(() => read(element(text)))
const because = (message: string) => ({ code: 'ERR_DER', message })

/** A reader by the book (X.690 §8.1.3, §10.1), slow and obvious: the end of the element, or undefined. */
function naiveEnd(bytes: readonly number[]): number | undefined {
  const [tag, first, ...rest] = bytes
  if (tag === undefined || first === undefined || tag % 32 === 31) return undefined
  const count = first < 128 ? 0 : first - 128
  if (first === 128 || count > 4 || rest.length < count) return undefined
  const octets = rest.slice(0, count)
  const length = first < 128 ? first : Number(`0x${Buffer.from(octets).toString('hex')}`)
  const shortest = first < 128 || (length > 127 && octets[0] !== 0)
  return shortest && 2 + count + length <= bytes.length ? 2 + count + length : undefined
}

describe('reading an element', () => {
  it('agrees with a reader by the book on any bytes', () => {
    const octet = fc.oneof(
      fc.nat(255),
      fc.constantFrom(0, 1, 2, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x84),
    )
    fc.assert(
      fc.property(fc.array(octet, { maxLength: 140 }), (octets) => {
        const wanted = naiveEnd(octets)
        const bytes = Buffer.from(octets)
        const refusal = refusalOf(() => {
          expect(readElement(bytes, 0, bytes.length).end).toBe(wanted)
        })
        if (wanted === undefined) expect(refusal?.code).toBe('ERR_DER')
        else expect(refusal).toBeUndefined()
      }),
      { numRuns: 5000 },
    )
  })

  it('never reads past its limit', () => {
    const bytes = hex('04 02 aa bb')
    expect(readElement(bytes, 0, 4).end).toBe(4)
    expect(refusalOf(() => readElement(bytes, 0, 3))).toEqual(because('truncated at byte 0'))
    expect(refusalOf(() => readElement(bytes, 0, 1))).toEqual(because('truncated at byte 1'))
    expect(refusalOf(() => readElement(bytes, 4, 4))).toEqual(because('truncated at byte 4'))
    expect(refusalOf(() => readElement(hex('04 82 01'), 0, 3))).toEqual(
      because('truncated at byte 3'),
    )
  })

  it.each([
    ['1f 01 00', 'a tag number above 30 at byte 0'],
    ['30 80 00 00', 'an indefinite length at byte 0'],
    ['04 85 00 00 00 00 01 aa', 'a length of more than 4 bytes at byte 0'],
    ['04 ff', 'a length of more than 4 bytes at byte 0'],
    ['04 81 01 aa', 'a length not in its shortest form at byte 0'],
    ['04 82 00 80', 'a length not in its shortest form at byte 0'],
    ['04 84 ff ff ff ff', 'truncated at byte 0'],
    ['04 01', 'truncated at byte 0'],
  ])('refuses %s', (text, message) => {
    const bytes = hex(text)
    expect(refusalOf(() => readElement(bytes, 0, bytes.length))).toEqual(because(message))
  })

  it('asks for a tag and for nothing behind', () => {
    expect(refusalOf(() => parseDer(hex('04 00')))).toEqual(
      because('tag 0x4 instead of 0x30 at byte 0'),
    )
    expect(refusalOf(() => parseDer(hex('30 00 00')))).toEqual(because('trailing bytes at byte 2'))
    expect(refusalOf(() => expectTag(undefined, tags.oid))).toEqual(
      because('a missing element of tag 0x6 at byte 0'),
    )
  })

  it('gives content and encoding without a copy', () => {
    const it = element('30 03 04 01 aa')
    const [child] = childrenOf(it)
    expect(child && Buffer.from(encodedOf(child)).toString('hex')).toBe('0401aa')
    expect(contentOf(it).buffer).toBe(it.bytes.buffer)
  })

  it('bounds the number of children', () => {
    expect(childrenOf(element('30 04 0500 0500'), 2)).toHaveLength(2)
    expect(refusalOf(() => childrenOf(element('30 06 0500 0500 0500'), 2))).toEqual(
      because('more than 2 elements at byte 6'),
    )
    const many = Buffer.concat([hex('30 81 82'), Buffer.alloc(130, Buffer.of(5, 0))])
    expect(refusalOf(() => childrenOf(parseDer(many)))?.message).toContain('more than 64 elements')
  })

  it('takes exactly one child from an explicit tag', () => {
    expect(onlyChildOf(element('a0 02 0500')).tag).toBe(tags.null)
    expect(refusalOf(() => onlyChildOf(element('a0 04 0500 0500')))).toEqual(
      because('trailing bytes at byte 4'),
    )
    expect(refusalOf(() => onlyChildOf(element('a0 00')))).toEqual(because('truncated at byte 2'))
  })
})

describe('object identifiers', () => {
  it.each([
    ['06 03 55 1d 0f', '2.5.29.15'],
    ['06 01 00', '0.0'],
    ['06 01 27', '0.39'],
    ['06 01 28', '1.0'],
    ['06 01 4f', '1.39'],
    ['06 01 50', '2.0'],
    ['06 02 88 37', '2.999'],
    ['06 08 2a 86 48 ce 3d 04 03 02', '1.2.840.10045.4.3.2'],
    ['06 09 2a 8f ff ff ff ff ff ff 7f', '1.2.9007199254740991'],
  ])('%s is %s', (text, dotted) => {
    expect(oidOf(element(text))).toBe(dotted)
  })

  const refused = refusedBy(oidOf)
  it('refuses what is not in its shortest form, too large or cut off', () => {
    expect(refused('06 00')).toEqual(because('a truncated object identifier at byte 0'))
    expect(refused('06 02 2a 86')).toEqual(because('a truncated object identifier at byte 0'))
    const shortest = because('an object identifier not in its shortest form at byte 0')
    expect(refused('06 02 80 01')).toEqual(shortest)
    expect(refused('06 03 2a 80 01')).toEqual(shortest)
    expect(refused('06 09 2a 90 80 80 80 80 80 80 00')).toEqual(
      because('an object identifier arc too large at byte 0'),
    )
    expect(refused('02 01 00')).toEqual(because('tag 0x2 instead of 0x6 at byte 0'))
  })
})

describe('numbers and booleans', () => {
  it.each([
    ['02 01 00', 0],
    ['02 01 7f', 127],
    ['02 02 00 80', 128],
    ['02 04 7f ff ff ff', 2 ** 31 - 1],
  ])('%s is %d', (text, value) => {
    expect(smallIntegerOf(element(text))).toBe(value)
  })

  it('keeps the sign byte of large integers', () => {
    expect([...integerOf(element('02 03 00 ff ff'))]).toEqual([0, 255, 255])
    expect([...integerOf(element('02 01 80'))]).toEqual([128])
    expect([...integerOf(element('02 02 ff 7f'))]).toEqual([255, 127])
  })

  it('refuses other forms and numbers out of range', () => {
    const refused = refusedBy(smallIntegerOf)
    expect(refused('02 00')).toEqual(because('an empty integer at byte 0'))
    const shortest = because('an integer not in its shortest form at byte 0')
    expect(refused('02 02 00 7f')).toEqual(shortest)
    expect(refused('02 02 ff 80')).toEqual(shortest)
    const range = because('an integer out of range at byte 0')
    expect(refused('02 01 80')).toEqual(range)
    expect(refused('02 05 00 80 00 00 00')).toEqual(range)
    expect(refusalOf(() => smallIntegerOf(undefined))?.message).toContain('a missing element')
  })

  it('knows one true and one false', () => {
    expect(booleanOf(element('01 01 ff'))).toBe(true)
    expect(booleanOf(element('01 01 00'))).toBe(false)
    const message = because('a boolean that is neither 0x00 nor 0xff at byte 0')
    for (const text of ['01 01 01', '01 00', '01 02 ff ff']) {
      expect(refusedBy(booleanOf)(text), text).toEqual(message)
    }
  })
})

describe('bit strings', () => {
  it('gives whole bytes', () => {
    expect([...wholeBitsOf(element('03 03 00 01 02'))]).toEqual([1, 2])
    expect([...wholeBitsOf(element('03 01 00'))]).toEqual([])
    const message = because('a bit string with unused bits at byte 0')
    expect(refusedBy(wholeBitsOf)('03 02 01 02')).toEqual(message)
    expect(refusalOf(() => wholeBitsOf(element('03 00')))).toEqual(message)
    expect(refusalOf(() => wholeBitsOf(childrenOf(element('30 04 03 00 00 00'))[0]))).toEqual(
      because('a bit string with unused bits at byte 2'),
    )
  })

  it.each([
    ['03 02 07 80', 0b1],
    ['03 02 01 06', 0b110_0000],
    ['03 02 00 01', 0b1000_0000],
    ['03 03 07 00 80', 0b1_0000_0000],
    ['03 01 00', 0],
  ])('%s is the named bits %d', (text, bits) => {
    expect(namedBitsOf(element(text))).toBe(bits)
  })

  it('refuses named bits that are written in another way', () => {
    const refused = refusedBy(namedBitsOf)
    const malformed = because('a malformed named bit list at byte 0')
    for (const text of ['03 00', '03 02 08 80', '03 04 00 01 01 01']) {
      expect(refused(text), text).toEqual(malformed)
    }
    const shortest = because('a named bit list not in its shortest form at byte 0')
    for (const text of [
      '03 02 00 80',
      '03 02 06 80',
      '03 02 07 81',
      '03 01 01',
      '03 03 00 80 00',
    ]) {
      expect(refused(text), text).toEqual(shortest)
    }
  })
})

describe('times', () => {
  const utc = (text: string) =>
    parseDer(Buffer.from(`\x17${String.fromCharCode(text.length)}${text}`, 'latin1'), tags.utcTime)
  const general = (text: string) =>
    parseDer(
      Buffer.from(`\x18${String.fromCharCode(text.length)}${text}`, 'latin1'),
      tags.generalizedTime,
    )

  it('reads both kinds', () => {
    expect(timeOf(utc('491231235959Z'))).toBe(Date.UTC(2049, 11, 31, 23, 59, 59))
    expect(timeOf(utc('500101000000Z'))).toBe(Date.UTC(1950, 0, 1))
    expect(timeOf(utc('240229120000Z'))).toBe(Date.UTC(2024, 1, 29, 12))
    expect(timeOf(general('99991231235959Z'))).toBe(Date.UTC(9999, 11, 31, 23, 59, 59))
  })

  it('refuses other forms and days that do not exist', () => {
    const malformed = because('a malformed time at byte 0')
    for (const text of ['2401010000Z', '240101000000', '240101000000+0100', '24010100000xZ', '']) {
      expect(
        refusalOf(() => timeOf(utc(text))),
        text,
      ).toEqual(malformed)
    }
    for (const text of ['20240101000000.5Z', '240101000000Z', '20240101000000+0000']) {
      expect(
        refusalOf(() => timeOf(general(text))),
        text,
      ).toEqual(malformed)
    }
    const nowhere = because('a time that does not exist at byte 0')
    for (const text of [
      '230229000000Z',
      '231301000000Z',
      '230101240000Z',
      '230101006000Z',
      '230101000060Z',
      '230100000000Z',
    ]) {
      expect(
        refusalOf(() => timeOf(utc(text))),
        text,
      ).toEqual(nowhere)
    }
    expect(refusalOf(() => timeOf(element('02 01 00')))).toEqual(
      because('tag 0x2 instead of 0x18 at byte 0'),
    )
    expect(refusalOf(() => timeOf(undefined))?.message).toContain('a missing element')
  })
})

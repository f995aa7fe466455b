import { describe, expect, it } from 'vitest'
import { distinguishedName } from '../../certs-dev/certificate.ts'
import { generalName } from '../../certs-dev/extensions.ts'
import { parseDer, tags } from '../../spiffe/der.ts'
import { element, octetString, sequence, set } from '../../spiffe/der-writer.ts'
import { distinguishedNameOf, generalNameOf, generalNamesOf } from '../../spiffe/general-name.ts'
import { refusalOf } from '../support/refusal.ts'

const read = (der: Buffer) => generalNameOf(parseDer(der, der[0]))
const readAll = (...names: readonly Buffer[]) => generalNamesOf(parseDer(sequence(...names)))

describe('GeneralName', () => {
  it('reads each kind that a constraint can speak of', () => {
    const name = distinguishedName(['2.5.4.3', 'a'])
    expect(read(generalName.uri('spiffe://td/a'))).toEqual({ kind: 'uri', value: 'spiffe://td/a' })
    expect(read(generalName.dns('a.example'))).toEqual({ kind: 'dns', value: 'a.example' })
    expect(read(generalName.email('a@b'))).toEqual({ kind: 'email', value: 'a@b' })
    expect(read(generalName.ip(10, 0, 0, 1))).toMatchObject({ kind: 'ip' })
    const directory = read(generalName.directory(name))
    expect(directory.kind === 'directory' && Buffer.from(directory.value)).toEqual(name)
  })

  it('keeps the tag of the others', () => {
    expect(read(element(0x88, Buffer.of(0x2a)))).toEqual({ kind: 'other', tag: 0x88 })
    // the constructed form of a URI is no URI
    expect(read(element(0xa6, octetString(Buffer.of(1))))).toEqual({ kind: 'other', tag: 0xa6 })
  })

  it('keeps a NUL where it is, so that the ID is refused and not cut', () => {
    expect(read(generalName.uri('spiffe://td/a\0b'))).toEqual({
      kind: 'uri',
      value: 'spiffe://td/a\0b',
    })
  })

  it('refuses bytes beyond ASCII', () => {
    expect(refusalOf(() => read(generalName.dns('\u00e9')))).toEqual({
      code: 'ERR_DER',
      message: 'a name that is not ASCII at byte 0',
    })
  })

  it('reads up to 256 names of a SAN, and at least one', () => {
    const names = (count: number) => Array.from({ length: count }, () => generalName.dns('a'))
    expect(readAll(...names(256))).toHaveLength(256)
    expect(refusalOf(() => readAll(...names(257)))?.message).toContain('more than 256 elements')
    expect(refusalOf(() => readAll())).toEqual({
      code: 'ERR_DER',
      message: 'an empty list of names at byte 0',
    })
  })

  it('refuses addresses that are neither IPv4 nor IPv6', () => {
    const address = (length: number) => generalName.ip(...Array.from({ length }, () => 1))
    expect(readAll(address(4), address(16))).toHaveLength(2)
    for (const length of [0, 3, 5, 8, 32]) {
      expect(refusalOf(() => readAll(address(length)))?.message, `${length}`).toBe(
        'an ip address of a wrong length at byte 0',
      )
    }
  })
})

describe('Name', () => {
  it('is a sequence of sets, given as encoded', () => {
    const name = distinguishedName(['2.5.4.3', 'a'], ['2.5.4.10', 'b'])
    expect(Buffer.from(distinguishedNameOf(parseDer(name)))).toEqual(name)
    expect(Buffer.from(distinguishedNameOf(parseDer(sequence())))).toEqual(sequence())
  })

  it('is refused otherwise', () => {
    const wrong = 'tag 0x30 instead of 0x31 at byte 2'
    expect(refusalOf(() => distinguishedNameOf(parseDer(sequence(sequence()))))?.message).toBe(
      wrong,
    )
    expect(refusalOf(() => distinguishedNameOf(parseDer(set(), tags.set)))?.message).toBe(
      'tag 0x31 instead of 0x30 at byte 0',
    )
    expect(refusalOf(() => read(element(0xa4, sequence(), sequence())))?.message).toBe(
      'trailing bytes at byte 4',
    )
  })
})

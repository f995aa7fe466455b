import { describe, expect, it } from 'vitest'
import { generalName } from '../../certs-dev/extensions.ts'
import { parseDer } from '../../spiffe/der.ts'
import { element, sequence } from '../../spiffe/der-writer.ts'
import type { GeneralName } from '../../spiffe/general-name.ts'
import { constraintProblem, nameConstraintsOf } from '../../spiffe/name-constraints.ts'
import { refusalOf } from '../support/refusal.ts'

const read = (...parts: readonly Buffer[]) => nameConstraintsOf(parseDer(sequence(...parts)))
const permitted = (...bases: readonly Buffer[]) => element(0xa0, ...bases.map((it) => sequence(it)))
const excluded = (...bases: readonly Buffer[]) => element(0xa1, ...bases.map((it) => sequence(it)))
const uri = (value: string): GeneralName => ({ kind: 'uri', value })

describe('name constraints', () => {
  it('are read in both lists', () => {
    expect(read(permitted(generalName.uri('a')), excluded(generalName.dns('b')))).toEqual({
      permitted: [{ kind: 'uri', value: 'a' }],
      excluded: [{ kind: 'dns', value: 'b' }],
    })
    expect(read(excluded(generalName.dns('b')))).toMatchObject({ permitted: [] })
  })

  it.each([
    ['nothing', [], 'malformed name constraints'],
    ['another tag', [element(0xa2)], 'malformed name constraints'],
    ['three lists', [element(0xa0), element(0xa1), element(0xa1)], 'more than 2 elements'],
    ['an empty list', [element(0xa1)], 'an empty list of subtrees'],
    [
      'a maximum',
      [element(0xa0, sequence(generalName.uri('a'), element(0x81, Buffer.of(1))))],
      'a subtree with minimum or maximum',
    ],
    [
      'an address without mask',
      [permitted(generalName.ip(1, 2, 3, 4))],
      'an ip constraint that is no address and mask',
    ],
    [
      'a mask with a hole',
      [permitted(generalName.ip(1, 2, 3, 4, 255, 0, 255, 0))],
      'an ip constraint that is no address and mask',
    ],
    [
      'a mask without its first bit',
      [permitted(generalName.ip(1, 2, 3, 4, 127, 0, 0, 0))],
      'an ip constraint that is no address and mask',
    ],
  ])('refuse %s', (_, parts, message) => {
    const refusal = refusalOf(() => read(...parts))
    expect(refusal?.code).toBe('ERR_DER')
    expect(refusal?.message).toContain(message)
  })

  it('accept every mask of leading ones', () => {
    for (let bits = 0; bits <= 32; bits++) {
      const mask = Buffer.alloc(4)
      mask.writeUInt32BE(bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0)
      expect(
        read(permitted(generalName.ip(0, 0, 0, 0, ...mask))).permitted,
        `/${bits}`,
      ).toHaveLength(1)
    }
  })

  it('fail closed on a URI whose host cannot be told', () => {
    const constraints = read(excluded(generalName.uri('evil.example')))
    const hostless = [
      'urn:a',
      'spiffe:///a',
      'spiffe://',
      'a',
      '',
      'x://[::1]/',
      'x://1.2.3.4/',
      'x://a:b/',
      'x://u@/',
      '://a',
    ]
    for (const text of hostless) {
      expect(constraintProblem(constraints, [uri(text)]), text).toBe('an excluded uri name')
    }
    for (const text of ['x://a', 'x://a/', 'X+1://a?q', 'x://u:p@a:1#f', 'x://a:']) {
      expect(constraintProblem(constraints, [uri(text)]), text).toBeUndefined()
    }
    // what browsers would call another host than we do is no host at all
    expect(constraintProblem(constraints, [uri('x://a@evil.example@b/')])).toBe(
      'an excluded uri name',
    )
  })

  it('say nothing about kinds that they do not name', () => {
    const constraints = read(permitted(generalName.dns('a')), excluded(generalName.email('b')))
    expect(
      constraintProblem(constraints, [uri('spiffe://c/d'), { kind: 'other', tag: 0x88 }]),
    ).toBe(undefined)
  })
})

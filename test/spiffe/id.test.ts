import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  isBelow,
  isMemberOf,
  isSpiffeId,
  parseSpiffeId,
  parseTrustDomain,
  pathOf,
  spiffeIdOf,
  trustDomainOf,
} from '../../spiffe/id.ts'
import { refusalOf } from '../support/refusal.ts'

const lower = 'abcdefghijklmnopqrstuvwxyz'
const nameCharacters = `${lower}0123456789.-_`
const segmentCharacters = `${lower.toUpperCase()}${nameCharacters}`

function expectRefused(why: string, ...texts: readonly string[]): void {
  for (const text of texts) {
    const refusal = refusalOf(() => parseSpiffeId(text))
    expect(refusal, text).toEqual({
      code: 'ERR_SPIFFE_ID',
      message: expect.stringContaining(why),
    })
    expect(isSpiffeId(text), text).toBe(false)
  }
}

function expectAccepted(...texts: readonly string[]): void {
  for (const text of texts) {
    expect(parseSpiffeId(text)).toBe(text)
    expect(isSpiffeId(text), text).toBe(true)
  }
}

const badName = 'the trust domain may contain only a-z, 0-9, dot, hyphen and underscore'
const badPath = 'the path may contain only letters, digits, dot, hyphen and underscore'
const emptySegment = 'the path has an empty segment or a trailing slash'
const noScheme = 'it does not start with spiffe://'

describe('SPIFFE IDs', () => {
  it('ID-1 the scheme is spiffe', () => {
    expectRefused(noScheme, 'http://td/x', 's', 'spiffe:/td', 'spiffe//td', '', ' spiffe://td/x')
    expectAccepted('spiffe://td/x')
  })

  it('ID-2 the trust domain is not empty', () => {
    expectRefused('the trust domain is empty', 'spiffe://', 'spiffe:///path')
  })

  it('ID-3 no query and no fragment, even empty ones', () => {
    expectRefused(badName, 'spiffe://td?', 'spiffe://td#', 'spiffe://td?x=/y')
    expectRefused(badPath, 'spiffe://td/p?x', 'spiffe://td/p#f', 'spiffe://td/p?', 'spiffe://td/p#')
  })

  it('ID-4 no user information', () => {
    expectRefused(badName, 'spiffe://u@td/p', 'spiffe://u:p@td', 'spiffe://@td/p')
  })

  it('ID-5 no port, not even the bare colon', () => {
    expectRefused(badName, 'spiffe://td:80/p', 'spiffe://td:/p', 'spiffe://td:')
  })

  it('ID-6 the trust domain is in lower case', () => {
    expectRefused(badName, 'spiffe://Td/p', 'spiffe://TD')
  })

  it('ID-7 exactly 39 byte values make a trust domain', () => {
    const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte))
    const accepted = bytes.filter((it) => isSpiffeId(`spiffe://a${it}b`) && it !== '/')
    expect(accepted.join('')).toBe([...nameCharacters].sort().join(''))
    expect(accepted).toHaveLength(39)
  })

  it('ID-8 no percent-encoding in the trust domain', () => {
    expectRefused(badName, 'spiffe://t%64/p', 'spiffe://%74d')
  })

  it('ID-9 an IPv4 address is a name, an IPv6 literal is not', () => {
    expectAccepted('spiffe://10.0.0.1/x', 'spiffe://256.0.0.1/x')
    expectRefused(badName, 'spiffe://[::1]/x', 'spiffe://::1/x')
  })

  it('ID-10 nothing depends on whether the name is valid DNS', () => {
    const long = 'a'.repeat(64)
    for (const name of ['a..b', '-a', '_', '.', '..', `${long}.${long}`, '1', 'xn--']) {
      expectAccepted(`spiffe://${name}`, `spiffe://${name}/x`)
      expect(parseTrustDomain(name)).toBe(name)
    }
  })

  it('ID-11 no percent-encoding in the path', () => {
    expectRefused(badPath, 'spiffe://td/a%20b', 'spiffe://td/%61', 'spiffe://td/a%2Fb')
  })

  it('ID-12 no empty segments', () => {
    expectRefused(emptySegment, 'spiffe://td//a', 'spiffe://td/a//b', 'spiffe://td//')
  })

  it('ID-13 no dot segments, but dots in segments', () => {
    const dots = 'the path has a dot segment'
    expectRefused(dots, 'spiffe://td/.', 'spiffe://td/..', 'spiffe://td/a/../b', 'spiffe://td/./a')
    expectAccepted('spiffe://td/...', 'spiffe://td/.a', 'spiffe://td/a..b', 'spiffe://td/..a')
  })

  it('ID-14 no trailing slash, nor a lone one', () => {
    expectRefused(emptySegment, 'spiffe://td/', 'spiffe://td/a/', 'spiffe://td/a/b/')
  })

  it('ID-15 exactly 65 byte values make a segment', () => {
    const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte))
    const accepted = bytes.filter((it) => isSpiffeId(`spiffe://td/a${it}b`) && it !== '/')
    expect(accepted.join('')).toBe([...segmentCharacters].sort().join(''))
    expect(accepted).toHaveLength(65)
    expectRefused(badPath, 'spiffe://td/ä', 'spiffe://td/~', 'spiffe://td/+', 'spiffe://td/a@b')
    expectRefused(
      badPath,
      'spiffe://td/a:b',
      'spiffe://td/\u212a',
      'spiffe://td/a\n',
      'spiffe://td/\0',
    )
  })

  it('ID-16 an ID of exactly 2048 bytes is supported', () => {
    const longest = `spiffe://td/${'a'.repeat(2048 - 12)}`
    expect(longest).toHaveLength(2048)
    expectAccepted(longest)
  })

  it('ID-17 an ID of 2049 bytes is never made', () => {
    const td = parseTrustDomain('td')
    expectRefused('it is longer than 2048 bytes', `spiffe://td/${'a'.repeat(2049 - 12)}`)
    expect(spiffeIdOf(td, `/${'a'.repeat(2048 - 12)}`)).toHaveLength(2048)
    expect(refusalOf(() => spiffeIdOf(td, `/${'a'.repeat(2049 - 12)}`))).toEqual({
      code: 'ERR_SPIFFE_ID',
      message: expect.stringContaining('it is longer than 2048 bytes'),
    })
  })

  it('ID-18 a trust domain has at most 255 bytes', () => {
    expectAccepted(`spiffe://${'a'.repeat(255)}/x`)
    expectRefused('the trust domain is longer than 255 bytes', `spiffe://${'a'.repeat(256)}/x`)
    expect(parseTrustDomain('a'.repeat(255))).toHaveLength(255)
    expect(refusalOf(() => parseTrustDomain('a'.repeat(256)))?.code).toBe('ERR_SPIFFE_ID')
  })

  it('ID-19 other letters are refused in scheme and trust domain, and differ in paths', () => {
    expectRefused(noScheme, 'Spiffe://td/a', 'SPIFFE://td/a')
    expectRefused(badName, 'spiffe://TD/a')
    expect(parseSpiffeId('spiffe://td/A')).not.toBe(parseSpiffeId('spiffe://td/a'))
  })

  it('shows at most 80 characters of what it refuses', () => {
    const { message } = refusalOf(() => parseSpiffeId('x'.repeat(5000))) ?? { message: '' }
    expect(message).toBe(`"${'x'.repeat(80)}…" is no SPIFFE ID: ${noScheme}`)
    expect(refusalOf(() => parseSpiffeId('x'))?.message).toBe(`"x" is no SPIFFE ID: ${noScheme}`)
  })
})

const nameArbitrary = fc.string({
  unit: fc.constantFrom(...nameCharacters),
  minLength: 1,
  maxLength: 40,
})
const segment = fc
  .string({ unit: fc.constantFrom(...segmentCharacters), minLength: 1, maxLength: 20 })
  .filter((it) => it !== '.' && it !== '..')
const pathArbitrary = fc
  .array(segment, { maxLength: 6 })
  .map((it) => it.map((s) => `/${s}`).join(''))

/** The grammar of SPIFFE-ID §2 in one expression, as the other opinion. */
function isByGrammar(text: string): boolean {
  const form = /^spiffe:\/\/[a-z0-9._-]{1,255}(\/(?!\.{1,2}(\/|$))[A-Za-z0-9._-]+)*$/
  return text.length <= 2048 && form.test(text)
}

describe('trust domains and paths', () => {
  it('come back from the ID they were put into', () => {
    fc.assert(
      fc.property(nameArbitrary, pathArbitrary, (name, path) => {
        const trustDomain = parseTrustDomain(name)
        const id = spiffeIdOf(trustDomain, path)
        expect(trustDomainOf(id)).toBe(name)
        expect(pathOf(id)).toBe(path)
        expect(isMemberOf(id, trustDomain)).toBe(true)
        expect(parseTrustDomain(String(spiffeIdOf(trustDomain)))).toBe(name)
      }),
    )
  })

  it('are accepted exactly where the grammar accepts them', () => {
    const near = fc.string({
      unit: fc.constantFrom('a', 'B', '.', '/', '%', ':', '-'),
      maxLength: 9,
    })
    fc.assert(
      fc.property(near, (rest) => {
        expect(isSpiffeId(`spiffe://${rest}`)).toBe(isByGrammar(`spiffe://${rest}`))
      }),
      { numRuns: 2000 },
    )
  })

  it('are read without a scheme or as an ID, never with a path', () => {
    expect(parseTrustDomain('spiffe://example.org')).toBe('example.org')
    for (const text of ['spiffe://example.org/a', 'example.org/a', 'https://example.org', '']) {
      expect(refusalOf(() => parseTrustDomain(text))?.code, text).toBe('ERR_SPIFFE_ID')
    }
  })

  it('tell members from others', () => {
    const id = parseSpiffeId('spiffe://example.org/a')
    expect(isMemberOf(id, parseTrustDomain('example.org'))).toBe(true)
    expect(isMemberOf(id, parseTrustDomain('example.or'))).toBe(false)
  })

  it('nest by whole segments', () => {
    const id = parseSpiffeId('spiffe://td/a/b')
    expect(['/a', '/a/b', ''].map((prefix) => isBelow(id, prefix))).toEqual([true, true, true])
    expect(['/a/', '/ab', '/a/b/c', '/b'].map((prefix) => isBelow(id, prefix))).toEqual([
      false,
      false,
      false,
      false,
    ])
    expect(isBelow(parseSpiffeId('spiffe://td/ab'), '/a')).toBe(false)
  })
})

// The guard against the engine: what the strict engine answers with 400 never passes it.
import { isIPv6 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseAddress } from '../../../policies/attributes/address.ts'
import { readHost } from '../../../policies/attributes/host.ts'
import { readPath, withUpperEscapes } from '../../../policies/attributes/path.ts'
import { defaultMesh } from '../../../policies/language/mesh.ts'
import { identityGuard } from '../../../policies/lower/guard.ts'
import { isSpiffeId } from '../../../spiffe/id.ts'
import { type EnvoyRequest, headerText } from '../../support/envoy-rbac.ts'
import { asEnvoySees, type Sent } from '../../support/envoy-request.ts'
import { passesGuard, plainSent } from '../../support/lowered-field.ts'
import { predicateHolds } from '../../support/lowered-verdict.ts'

const hex = fc.constantFrom(...'0123456789abcdefABCDEF')
const anyEscape = fc.tuple(hex, hex).map(([a, b]) => `%${a}${b}`)
const piece = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      '/',
      'a',
      '.',
      '..',
      ';',
      '%',
      '%25',
      '%c3',
      '%a9',
      '%ed',
      '%a0',
      '%80',
    ),
  },
  { weight: 3, arbitrary: anyEscape },
  { weight: 2, arbitrary: fc.string({ unit: 'binary-ascii', minLength: 1, maxLength: 1 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('%e4%b8%ad', '%f0%9f%98%80', '%4%31', '\\', '\xff', 'é', '?', '#'),
  },
)
const target = fc.array(piece, { maxLength: 8 }).map((all) => `/${all.join('')}`)

function seenAs(change: Partial<Sent>): EnvoyRequest | undefined {
  return asEnvoySees({ ...plainSent, ...change }, { mergesSlashes: true, trustedHops: 0 })
}

const passes = (change: Partial<Sent>) => {
  const seen = seenAs(change)
  return seen !== undefined && passesGuard(seen)
}

describe('the guard', () => {
  it('lets no path through that the strict engine refuses, nor one that decoding again would change', {
    timeout: 300_000,
  }, () => {
    let [let1, refused] = [0, 0]
    fc.assert(
      fc.property(target, (sent) => {
        const seen = seenAs({ target: sent })
        if (seen === undefined || !passesGuard(seen)) {
          refused++
          return
        }
        let1++
        const forwarded = headerText(seen, ':path') ?? ''
        const read = readPath(forwarded, defaultMesh)
        const plain = withUpperEscapes(forwarded.split('?')[0] ?? '')
        expect({ sent, forwarded, read }).toMatchObject({ read: { ok: true, forwarded: plain } })
      }),
      { numRuns: 20_000 },
    )
    console.info(`guard: ${let1} paths passed, ${refused} refused`)
    expect(Math.min(let1, refused)).toBeGreaterThan(1000)
  })

  it.each([
    ['a broken escape', '/a%2'],
    ['an escape that decoding makes', '/%4%31'],
    ['a doubly encoded slash', '/%252f'],
    ['any doubly encoded byte', '/%25%34%31'],
    ['an escaped control byte', '/a%0a'],
    ['an overlong dot', '/%c0%ae%c0%ae/x'],
    ['half a surrogate', '/%ed%a0%80'],
    ['a byte beyond UTF-8', '/%ff'],
    ['dots with parameters that were escaped', '/a/%2e%2e;x/b'],
    ['a byte that has to be escaped', '/a?\xff'],
  ])('refuses %s', (_, sent) => {
    expect(passes({ target: sent })).toBe(false)
  })

  it.each([
    '/',
    '/a/b.js?x=1&y=%zz',
    '/a//b',
    "/~a-b_c!$&'()*+,;=:@/",
    '/%E4%B8%AD',
    '/%20',
    '/a"b',
  ])('lets %s pass', (sent) => {
    expect(passes({ target: sent })).toBe(true)
  })

  it('refuses empty segments where a DENY speaks of them', () => {
    const seen = asEnvoySees(
      { ...plainSent, target: '/a//b' },
      { mergesSlashes: false, trustedHops: 0 },
    )
    expect(seen === undefined || passesGuard(seen)).toBe(false)
  })

  it('lets just those hosts through that the strict engine takes, but for addresses that end as IPv4', {
    timeout: 300_000,
  }, () => {
    const character = fc.constantFrom(
      ...'ab1Z.:-_[]@, \xe9',
      '::',
      ':80',
      '65535',
      '65536',
      '[::1]',
      '[1:2:3::4]',
    )
    const host = fc.array(character, { minLength: 1, maxLength: 6 }).map((all) => all.join(''))
    fc.assert(
      fc.property(host, (sent) => {
        const isPlain = readHost(sent.trim(), 'strict') !== undefined
        expect({ sent, passes: passes({ hosts: [sent] }) }).toEqual({ sent, passes: isPlain })
      }),
      { numRuns: 10_000 },
    )
    expect(passes({ hosts: ['[::ffff:10.1.1.1]'] })).toBe(false)
  })

  it('knows every way to write an IPv6 address', () => {
    const group = fc.oneof(
      fc.constantFrom('', '0', 'ffff', 'g', '12345'),
      fc.string({ unit: hex, minLength: 1, maxLength: 4 }),
    )
    fc.assert(
      fc.property(fc.array(group, { minLength: 1, maxLength: 9 }), (groups) => {
        const text = groups.join(':')
        expect({ text, passes: passes({ hosts: [`[${text}]`] }) }).toEqual({
          text,
          passes: isIPv6(text),
        })
      }),
      { numRuns: 10_000 },
    )
  })

  it('refuses two hosts, and a method that nobody named', () => {
    expect(passes({ hosts: ['a', 'b'] })).toBe(false)
    const methods = ['GET', 'DELETE', 'get', 'TRACE', 'CONNECT', '']
    expect(methods.map((method) => passes({ method }))).toEqual([
      true,
      true,
      false,
      false,
      false,
      false,
    ])
  })

  it('takes bare addresses in x-forwarded-for, and nothing else', () => {
    const part = fc.constantFrom(
      '10.1.1.1',
      '010.1.1.1',
      '256.1.1.1',
      '::1',
      '2001:db8::1',
      '::ffff:10.1.1.1',
      '[::1]',
      'unknown',
      '1.2.3.4:80',
      'fe80::1%eth0',
      '',
    )
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 3 }),
        fc.constantFrom(',', ', ', ' ,\t'),
        (parts, comma) => {
          const sent = parts.join(comma)
          const headers = [['X-Forwarded-For', sent]] as const
          const isBare = parts.every((it) => parseAddress(it) !== undefined)
          expect({ sent, passes: passes({ headers }) }).toEqual({ sent, passes: isBare })
        },
      ),
    )
    expect(
      passes({
        headers: [
          ['x-forwarded-for', '10.1.1.1'],
          ['x-forwarded-for', 'for=10.1.1.1'],
        ],
      }),
    ).toBe(false)
  })

  it('takes one SPIFFE ID', () => {
    const segment = fc.constantFrom('a', '.', '..', '...', '.a', 'A-b_c.d', '', 'a b', 'é', '?x')
    const id = fc.tuple(
      fc.constantFrom('spiffe://td', 'spiffe://TD', 'SPIFFE://td', 'spiffe://', 'https://td'),
      fc.array(segment, { maxLength: 4 }),
    )
    const isRefused = (uris: readonly string[]) => {
      const seen = seenAs({ uris })
      return seen !== undefined && predicateHolds(identityGuard.when, seen)
    }
    fc.assert(
      fc.property(id, ([start, segments]) => {
        const uri = [start, ...segments].join('/')
        expect({ uri, isRefused: isRefused([uri]) }).toEqual({ uri, isRefused: !isSpiffeId(uri) })
      }),
      { numRuns: 2000 },
    )
    expect(isRefused(['spiffe://td/a', 'spiffe://td/b'])).toBe(true)
  })
})

// Hosts, headers and methods as Envoy compares them, against the engine.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { defaultMesh } from '../../../policies/language/mesh.ts'
import { host as hostWord, value as valueWord } from '../../../policies/language/words.ts'
import { methods } from '../../../policies/lower/connections.ts'
import { headers } from '../../../policies/lower/headers.ts'
import { hosts } from '../../../policies/lower/hosts.ts'
import { hosts as engineHosts, header, method } from '../../../policies/rules/http-tests.ts'
import { askBoth, plainSent } from '../../support/lowered-field.ts'

const kind = {
  isNegated: fc.boolean(),
  quantifier: fc.constantFrom('widest' as const, 'narrowest' as const),
}

/** A star at an end now and then. */
const patternsOf = (text: fc.Arbitrary<string>, isGood: (text: string) => boolean) =>
  fc
    .array(
      fc
        .tuple(text, fc.constantFrom('', '', 'before', 'after', 'alone'))
        .map(([it, star]) =>
          star === 'alone' ? '*' : star === 'before' ? `*${it}` : star === 'after' ? `${it}*` : it,
        ),
      { minLength: 1, maxLength: 2 },
    )
    .filter((list) => list.every(isGood))

const hostPieces = [
  'h',
  'a',
  'A',
  '.',
  '.',
  ':',
  ':80',
  ':8',
  '80',
  '[',
  ']',
  '[::1]',
  '::',
  '-',
  'ſ',
  'K',
  '1',
]
const host = fc
  .array(fc.constantFrom(...hostPieces), { minLength: 1, maxLength: 4 })
  .map((all) => all.join(''))
const plainHost = fc.constantFrom(
  'h',
  'H.',
  'a.h',
  'A.H:80',
  'h.:80',
  '[::1]',
  '[::1]:80',
  'h:8',
  'k',
  's',
  'a80',
)

const linePieces = ['a', 'b', 'ab', ',', ' ', '\t', '\xff', '*', '.']
const line = fc.array(fc.constantFrom(...linePieces), { maxLength: 3 }).map((all) => all.join(''))

describe('lowered hosts', () => {
  it('are those of the engine, for every request that the guard lets pass', {
    timeout: 300_000,
  }, () => {
    let passed = 0
    const texts = patternsOf(fc.oneof(host, plainHost), (it) => hostWord.safeParse(it).success)
    fc.assert(
      fc.property(
        fc.record({ ...kind, texts }),
        fc.array(fc.oneof(plainHost, host), { minLength: 12, maxLength: 12 }),
        (field, sent) => {
          for (const it of sent) {
            const both = askBoth(
              { ...field, engine: engineHosts, lowered: hosts },
              { ...plainSent, hosts: [it] },
            )
            if (both === undefined) continue
            passed++
            expect({ it, ...both }).toEqual({ it, ...both, lowered: both.forwarded })
          }
        },
      ),
      { numRuns: 800 },
    )
    expect(passed).toBeGreaterThan(2000)
  })

  it('miss no host of a DENY for its case, port or final dot', () => {
    const deny = { texts: ['h.example'], isNegated: false, quantifier: 'widest' } as const
    const ask = (it: string) =>
      askBoth({ ...deny, engine: engineHosts, lowered: hosts }, { ...plainSent, hosts: [it] })
        ?.lowered
    const sent = [
      'h.example',
      'H.Example',
      'h.example:80',
      'h.example.',
      'h.example.:80',
      'xh.example',
    ]
    expect(sent.map(ask)).toEqual([true, true, true, true, true, false])
  })
})

describe('lowered headers', () => {
  const ask = (texts: readonly string[], isDeny: boolean, lines: readonly string[]) =>
    askBoth(
      {
        ...{
          engine: header('x-role'),
          lowered: headers,
          names: ['x-role'],
          texts,
          isNegated: false,
        },
        quantifier: isDeny ? 'widest' : 'narrowest',
      },
      { ...plainSent, headers: lines.map((it) => ['x-role', it] as const) },
    )?.lowered

  it('err to the safe side only: a DENY is wider, an ALLOW narrower, however often a header is sent', {
    timeout: 300_000,
  }, () => {
    let [same, other] = [0, 0]
    const texts = patternsOf(
      fc.oneof(line, fc.constantFrom('a', 'b', 'ab')),
      (it) => valueWord.safeParse(it).success,
    )
    fc.assert(
      fc.property(
        fc.record({ ...kind, texts }),
        fc.array(fc.array(line, { maxLength: 3 }), { minLength: 12, maxLength: 12 }),
        (field, sent) => {
          for (const lines of sent) {
            const both = askBoth(
              { ...field, engine: header('x-role'), lowered: headers, names: ['x-role'] },
              { ...plainSent, headers: lines.map((it) => ['x-role', it] as const) },
            )
            if (both === undefined) continue
            if (both.lowered === both.forwarded) same++
            else other++
            const errs = {
              lowered: field.quantifier === 'widest',
              forwarded: field.quantifier !== 'widest',
            }
            if (both.lowered !== both.forwarded) expect({ lines, ...both }).toMatchObject(errs)
          }
        },
      ),
      { numRuns: 800 },
    )
    console.info(`headers: ${same} alike, ${other} on the safe side`)
    expect(same).toBeGreaterThan(other)
  })

  it.each([
    [['admin'], true, ['admin'], true],
    [['admin'], true, ['user', 'admin'], true],
    [['admin'], true, ['user,admin'], true],
    [['admin'], true, ['\xff', 'admin'], true],
    [['admin'], true, ['administrator'], false],
    [['user'], false, ['user'], true],
    [['user'], false, ['user', 'user'], false],
    [['user'], false, ['user', 'admin'], false],
    [['user*'], false, ['user,admin'], false],
    [['*'], false, [''], true],
    [['*'], false, [], false],
  ] as const)('%j, of a DENY: %s, the lines %j: %s', (texts, isDeny, lines, expected) => {
    expect(ask(texts, isDeny, lines)).toBe(expected)
  })

  it('that Envoy changes are refused, and those that are ours are never there', () => {
    const asked = { texts: ['a'], port: undefined, ip: undefined, protocol: 'http' } as const
    const setting = { mesh: defaultMesh, namespace: 'app' }
    const why = (name: string) => {
      const it = headers(
        { ...asked, isNegated: false, names: [name] },
        { ...setting, quantifier: 'widest' },
      )
      return it.ok ? it.predicate : it.why
    }
    expect(why('cookie')).toBe('Envoy changes cookie before it compares it')
    expect(why(':scheme')).toBe('Envoy changes :scheme before it compares it')
    expect(why('x-envoy-peer')).toEqual({ kind: 'any', of: [] })
  })
})

describe('lowered methods', () => {
  it.each([
    ['GET', true],
    ['G*', true],
    ['*T', true],
    ['*', true],
    ['POST', false],
    ['GETX', false],
  ])('%s of GET: %s', (text, expected) => {
    for (const isNegated of [false, true]) {
      for (const quantifier of ['widest', 'narrowest'] as const) {
        const field = { engine: method, lowered: methods, texts: [text], isNegated, quantifier }
        const both = askBoth(field, plainSent)
        expect(both).toMatchObject({
          forwarded: expected !== isNegated,
          lowered: expected !== isNegated,
        })
      }
    }
  })
})

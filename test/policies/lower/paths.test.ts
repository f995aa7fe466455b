// Paths as Envoy compares them, against the engine: patterns and targets that are odd in every way known.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { path as pathWord } from '../../../policies/language/words.ts'
import { paths } from '../../../policies/lower/paths.ts'
import { paths as enginePaths } from '../../../policies/rules/http-tests.ts'
import { askBoth, type Field, plainSent } from '../../support/lowered-field.ts'

const pieces = [
  '/',
  '/',
  'a',
  'b',
  'ab',
  '.',
  '..',
  ';',
  '%',
  '%c3%a9',
  '%C3%A9',
  '%C',
  '3',
  'A9',
  'c3',
]
const odd = [
  '%2e',
  '%2F',
  '%5c',
  '\\',
  '%25',
  '%252f',
  '%4%31',
  '"',
  '%22',
  '{',
  '%41',
  'A',
  '%E4%B8%AD',
]

const target = fc
  .tuple(
    fc.array(
      fc.oneof(
        { weight: 4, arbitrary: fc.constantFrom(...pieces) },
        { weight: 1, arbitrary: fc.constantFrom(...odd) },
      ),
      { maxLength: 7 },
    ),
    fc.constantFrom('', '', '?', '?x', '?/b', '?a*'),
  )
  .map(([parts, query]) => `/${parts.join('')}${query}`)

const template = fc
  .array(fc.constantFrom('a', 'b', '{*}', '%c3%a9'), { maxLength: 3 })
  .chain((segments) =>
    fc.constantFrom('', '/{**}', '/{**}/b', '/b/{**}').map((end) => `/${segments.join('/')}${end}`),
  )
const plain = fc
  .tuple(
    fc.constantFrom('', '', '*'),
    fc.array(fc.constantFrom(...pieces, '%41', '"'), { maxLength: 5 }),
    fc.constantFrom('', '', '*'),
  )
  .map(([before, parts, after]) =>
    before === '' ? `/${parts.join('')}${after}` : `*${parts.join('')}`,
  )
const pattern = fc.oneof({ weight: 3, arbitrary: plain }, { weight: 1, arbitrary: template })
const texts = fc
  .array(pattern, { minLength: 1, maxLength: 2 })
  .filter((list) => list.every((it) => pathWord.safeParse(it).success))

const ask = (it: Pick<Field, 'texts' | 'isNegated' | 'quantifier'>, sent: string) =>
  askBoth({ ...it, engine: enginePaths, lowered: paths }, { ...plainSent, target: sent })

// what Envoy rewrites in another way than the engine reads it; it is judged and forwarded as rewritten
const isRewritten = (sent: string) => /["<>^`{|}]|\/\.{1,2};/.test(sent)

describe('lowered paths', () => {
  it('are those of the engine, for every request that the guard lets pass', {
    timeout: 300_000,
  }, () => {
    let passed = 0
    let held = 0
    const field = fc.record({
      texts,
      isNegated: fc.boolean(),
      quantifier: fc.constantFrom('widest' as const, 'narrowest' as const),
    })
    fc.assert(
      fc.property(field, fc.array(target, { minLength: 20, maxLength: 20 }), (it, targets) => {
        for (const sent of targets) {
          const both = ask(it, sent)
          if (both === undefined) continue
          passed++
          if (both.lowered) held++
          expect({ sent, lowered: both.lowered }).toEqual({ sent, lowered: both.forwarded })
          // a DENY is compared with the path as it was sent, too
          if (it.quantifier === 'widest' && both.sent === true && !isRewritten(sent)) {
            expect({ sent, lowered: both.lowered }).toEqual({ sent, lowered: true })
          }
        }
      }),
      { numRuns: 300 },
    )
    console.info(`paths: ${passed} compared, ${held} held`)
    expect(Math.min(held, passed - held)).toBeGreaterThan(100)
  })

  it.each([
    ['/ok', '/ok', true],
    ['/ok', '/ok?x=1', true],
    ['/ok', '/okay', false],
    ['/ok', '/x?/ok', false],
    ['/ok*', '/okay?x', true],
    ['*.js', '/a/b.js?v=.css', true],
    ['*.js', '/a?b.js', false],
    ['/%c3%a9', '/%C3%A9', true],
    ['/%C3%A9*', '/%c3%a9/x', true],
    ['*%a9', '/%c3%A9', true],
    ['*A9', '/%c3%a9', true],
    ['*a9', '/%c3%a9', false],
    ['/%C*', '/%c3%a9', true],
    ['/%c*', '/%c3%a9', false],
    ['/a/{**}', '/a/b/c?d', true],
    ['/a/{**}', '/a', false],
    ['/a/{*}/c', '/a/b/c', true],
    ['/a/{*}/c', '/a/b/b/c', false],
  ])('%s of an ALLOW and the target %s: %s', (text, sent, expected) => {
    const both = ask({ texts: [text], isNegated: false, quantifier: 'narrowest' }, sent)
    expect(both).toEqual({ sent: expected, forwarded: expected, lowered: expected })
  })

  it('of a DENY see a path that was sent with empty segments, or never see it', () => {
    const deny = { isNegated: false, quantifier: 'widest' } as const
    expect(ask({ ...deny, texts: ['/a/b'] }, '/a//b')?.lowered).toBe(true)
    expect(ask({ ...deny, texts: ['/a//b'] }, '/a//b')).toBeUndefined()
    expect(ask({ ...deny, texts: ['/a/{**}/b'] }, '/a//b')).toBeUndefined()
    expect(ask({ ...deny, isNegated: true, texts: ['/a/b'] }, '/a//b')).toBeUndefined()
    expect(ask({ ...deny, isNegated: true, texts: ['/a/b'] }, '/a/b')?.lowered).toBe(false)
  })
})

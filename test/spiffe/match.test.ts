import { describe, expect, it } from 'vitest'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { matchAny, matchId, matchMemberOf, matchOneOf } from '../../spiffe/match.ts'

const a = parseSpiffeId('spiffe://td/a')
const b = parseSpiffeId('spiffe://td/b')
const below = parseSpiffeId('spiffe://td/a/b')
const foreign = parseSpiffeId('spiffe://td.example/a')

describe('matchers', () => {
  it('match one ID, whole', () => {
    expect(matchId(a)(a)).toBeUndefined()
    expect(matchId(a)(below)).toBe('the peer is spiffe://td/a/b, expected spiffe://td/a')
  })

  it('match one of several, and none of none', () => {
    expect(matchOneOf([a, b])(b)).toBeUndefined()
    expect(matchOneOf([a, b])(below)).toBe(
      'the peer is spiffe://td/a/b, expected one of spiffe://td/a, spiffe://td/b',
    )
    expect(matchOneOf([])(a)).toBe('the peer is spiffe://td/a, expected one of ')
  })

  it('match the members of a trust domain', () => {
    const match = matchMemberOf(parseTrustDomain('td'))
    expect(match(a)).toBeUndefined()
    expect(match(foreign)).toBe('the peer is spiffe://td.example/a, not of trust domain td')
  })

  it('match anyone only on purpose', () => {
    expect([a, foreign].map(matchAny)).toEqual([undefined, undefined])
  })
})

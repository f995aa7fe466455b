import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { namesPort, readHost } from '../../../policies/attributes/host.ts'

describe('readHost in strict', () => {
  it.each([
    ['h', 'h', 'h'],
    ['Deny.Example.COM', 'deny.example.com', 'deny.example.com'],
    ['h.', 'h', 'h'],
    ['h:8080', 'h:8080', 'h'],
    ['h.:80', 'h:80', 'h'],
    ['a_b-c.d', 'a_b-c.d', 'a_b-c.d'],
    ['[::1]', '[::1]', '[::1]'],
    ['[2001:DB8::1]:443', '[2001:db8::1]:443', '[2001:db8::1]'],
    ['192.0.2.1:65535', '192.0.2.1:65535', '192.0.2.1'],
  ])('row 58: %s is %s, its name %s', (sent, whole, name) => {
    expect(readHost(sent, 'strict')).toEqual({ raw: sent, sent: sent.toLowerCase(), whole, name })
  })

  it.each([
    ...['', '.', 'h..', '.h', 'h:', 'h:x', 'h:65536', 'h:123456', 'api.example.com, evil', 'a,b'],
    ...['u@h', 'h h', ' h', 'h/', 'h?x', 'é', '[::1', '[::g]', '[fe80::1%eth0]', '::1', 'h\n', '*'],
  ])('rows 58, 65: %j is refused', (sent) => {
    expect(readHost(sent, 'strict')).toBeUndefined()
  })
})

describe('readHost as Istio does', () => {
  it('takes a host as sent, but for its case', () => {
    for (const sent of ['H:8080', 'h.', 'a, b', '']) {
      const lower = sent.toLowerCase()
      expect(readHost(sent, 'istio')).toEqual({ raw: sent, sent: lower, whole: lower, name: lower })
    }
  })

  it.each(['a\nb', 'a\rb', 'a\x00', '\x7f'])('refuses the control character in %j', (sent) => {
    expect(readHost(sent, 'istio')).toBeUndefined()
  })
})

describe('a host', () => {
  const anyHost = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.stringMatching(/^[a-zA-Z0-9.:[\]_-]*$/),
    fc.webAuthority(),
  )

  it('never throws, and what is read reads as itself', () => {
    fc.assert(
      fc.property(anyHost, fc.constantFrom('strict', 'istio'), (text, profile) => {
        const host = readHost(text, profile)
        if (host === undefined) return
        expect(readHost(host.whole, profile)).toMatchObject({ whole: host.whole, name: host.name })
      }),
      { numRuns: 5000 },
    )
  })
})

describe('namesPort', () => {
  it.each([
    ['h:80', true],
    ['h:*', true],
    ['*:80', true],
    ['[::1]:80', true],
    ['h', false],
    ['*.h', false],
    ['[::1]', false],
  ])('%s: %s', (pattern, expected) => {
    expect(namesPort(pattern)).toBe(expected)
  })
})

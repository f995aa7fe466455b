import { BlockList, isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  addressText,
  type IpAddress,
  ipSet,
  parseAddress,
  parseBlock,
  unmapped,
  unmappedBlock,
} from '../../../policies/attributes/address.ts'

const v4 = fc.ipV4()
const v6 = fc.ipV6()
const mapped = v4.map((text) => `::ffff:${text}`)
const prefixed = fc.oneof(
  fc.tuple(v4, fc.integer({ min: 0, max: 32 })),
  fc.tuple(v6, fc.integer({ min: 0, max: 128 })),
)

function address(text: string): IpAddress {
  const parsed = parseAddress(text)
  if (parsed === undefined) throw new Error(`${text} is no address`)
  return parsed
}

describe('addresses', () => {
  it.each([
    ['10.1.1.1', 32, '10.1.1.1'],
    ['::', 128, '0:0:0:0:0:0:0:0'],
    ['2001:DB8::1', 128, '2001:db8:0:0:0:0:0:1'],
    ['::ffff:10.1.1.1', 128, '0:0:0:0:0:ffff:a01:101'],
    ['1:2:3:4:5:6:7::', 128, '1:2:3:4:5:6:7:0'],
  ])('%s has %i bits', (text, bits, shown) => {
    expect(address(text).bits).toBe(bits)
    expect(addressText(address(text))).toBe(shown)
  })

  it.each(['', 'a', '10.1', '010.1.1.1', '256.1.1.1', 'fe80::1%eth0', '[::1]', '::1::', ' ::1'])(
    '%j is none',
    (text) => {
      expect(parseAddress(text)).toBeUndefined()
    },
  )

  it('are what node:net takes for one, and shown so that they read the same', () => {
    const any = fc.oneof(v4, v6, mapped, fc.string(), fc.stringMatching(/^[0-9a-f:./]*$/))
    fc.assert(
      fc.property(any, (text) => {
        const parsed = parseAddress(text)
        expect(parsed !== undefined).toBe(isIPv4(text) || (isIPv6(text) && !text.includes('%')))
        if (parsed !== undefined) expect(parseAddress(addressText(parsed))).toEqual(parsed)
      }),
      { numRuns: 2000 },
    )
  })

  it('row 90: a mapped one is the IPv4 address that it is, and so is a block of them', () => {
    expect(unmapped(address('::ffff:10.1.1.1'))).toEqual(address('10.1.1.1'))
    expect(unmapped(address('::10.1.1.1'))).toEqual(address('::a01:101'))
    expect(unmapped(address('10.1.1.1'))).toEqual(address('10.1.1.1'))
    const plain = (text: string) => {
      const block = parseBlock(text)
      return block && unmappedBlock(block)
    }
    expect(plain('::ffff:10.0.0.0/104')).toEqual(parseBlock('10.0.0.0/8'))
    expect(plain('::ffff:10.1.1.1')).toEqual(parseBlock('10.1.1.1'))
    expect(plain('::/0')).toEqual(parseBlock('::/0'))
    expect(plain('2001:db8::/120')).toEqual(parseBlock('2001:db8::/120'))
  })
})

describe('blocks', () => {
  it.each(['', '/', '10.0.0.0/', '10.0.0.0/33', '10.0.0.0/08', '10.0.0.0/8/8', '::/129', 'a/8'])(
    '%j is none',
    (text) => {
      expect(parseBlock(text)).toBeUndefined()
    },
  )

  it('hold what node:net says that they hold', () => {
    const all = fc.array(prefixed, { minLength: 1, maxLength: 6 })
    let inside = 0
    fc.assert(
      fc.property(all, fc.oneof(v4, v6), fc.boolean(), (blocks, other, isOfOne) => {
        // an address of one of the blocks, or any
        const text = isOfOne ? (blocks[0]?.[0] ?? other) : other
        const list = new BlockList()
        const family = isIPv4(text) ? 'ipv4' : 'ipv6'
        // node:net puts IPv4 addresses into blocks of IPv6 too
        for (const [base, prefix] of blocks) {
          if (isIPv4(base) === isIPv4(text)) list.addSubnet(base, prefix, family)
        }
        const set = ipSet(blocks.flatMap(([base, prefix]) => parseBlock(`${base}/${prefix}`) ?? []))
        const holds = set(address(text))
        if (holds) inside++
        expect(holds).toBe(list.check(text, family))
      }),
      { numRuns: 1000 },
    )
    expect(inside).toBeGreaterThan(100)
  })

  it('never throw', () => {
    const any = fc.oneof(fc.string(), fc.stringMatching(/^[0-9a-f:.]*\/[0-9]*$/))
    fc.assert(
      fc.property(any, (text) => {
        const block = parseBlock(text)
        if (block !== undefined) expect(block.prefix).toBeLessThanOrEqual(block.bits)
      }),
      { numRuns: 2000 },
    )
  })
})

// Properties of the whole verifier: whatever is done to good bytes, it answers or refuses, and never believes.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bundleOf, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseCertificate, splitDer } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { ca, leaf, now } from '../support/vectors.ts'

const root = ca('root')
const chain = leaf(ca('intermediate', { parent: root }))
const bundles = bundleSourceOf(bundleOf(parseTrustDomain('example.org'), [root.certificate]))

interface Edit {
  readonly kind: 'set' | 'flip' | 'insert' | 'remove' | 'cut'
  readonly at: number
  readonly byte: number
}

const edits: fc.Arbitrary<Edit[]> = fc.array(
  fc.record({
    kind: fc.constantFrom('set', 'flip', 'insert', 'remove', 'cut'),
    at: fc.nat(2000),
    byte: fc.nat(255),
  }),
  { minLength: 1, maxLength: 4 },
)

function edited(der: Uint8Array, list: readonly Edit[]): Buffer {
  const bytes = [...der]
  for (const { kind, at, byte } of list) {
    const i = at % Math.max(bytes.length, 1)
    const old = bytes[i] ?? 0
    if (kind === 'set') bytes[i] = byte
    if (kind === 'flip') bytes[i] = old ^ (1 << (byte & 7))
    if (kind === 'insert') bytes.splice(i, 0, byte)
    if (kind === 'remove') bytes.splice(i, 1)
    if (kind === 'cut' && byte < 16) bytes.length = i
  }
  return Buffer.from(bytes)
}

/** True when accepted, false when refused; throws what is neither. */
function isAccepted(ders: readonly Uint8Array[]): boolean {
  try {
    return verifySvid(ders, bundles, { now }).path.length === 3
  } catch (error) {
    if (error instanceof IdentityError && error.code === 'ERR_UNTRUSTED') return false
    throw error
  }
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0

describe('mutations of a valid chain', () => {
  it('start from one that is accepted', () => {
    expect(isAccepted(chain)).toBe(true)
  })

  it.each([
    ['leaf', 0],
    ['intermediate', 1],
  ])('of the %s are refused, and throw nothing but IdentityError', (_, level) => {
    fc.assert(
      fc.property(edits, (list) => {
        const original = chain[level] ?? Buffer.alloc(0)
        const changed = edited(original, list)
        const accepted = isAccepted(chain.map((der, i) => (i === level ? changed : der)))
        // edits can undo each other; then nothing changed and the chain stays good
        expect(accepted).toBe(same(changed, original))
      }),
      { numRuns: 1000 },
    )
  })

  it('of the first and the last bit of each byte of the leaf are refused', () => {
    const [original = Buffer.alloc(0), ...rest] = chain
    const believed = [...original.keys()].filter((at) =>
      [0x01, 0x80].some((mask) => {
        const changed = Buffer.from(original)
        changed.writeUInt8(changed.readUInt8(at) ^ mask, at)
        return isAccepted([changed, ...rest])
      }),
    )
    expect(believed).toEqual([])
  })

  it('of a root never make the reader throw anything but ERR_CERTIFICATE', () => {
    fc.assert(
      fc.property(edits, (list) => {
        const changed = edited(root.certificate, list)
        try {
          expect(same(parseCertificate(changed).der, changed)).toBe(true)
        } catch (error) {
          expect(error).toMatchObject({ name: 'IdentityError', code: 'ERR_CERTIFICATE' })
        }
      }),
      { numRuns: 1000 },
    )
  })

  it('never make the splitter lose or invent a byte', () => {
    const whole = Buffer.concat(chain)
    fc.assert(
      fc.property(edits, (list) => {
        const changed = edited(whole, list)
        try {
          expect(same(Buffer.concat(splitDer(changed)), changed)).toBe(true)
        } catch (error) {
          expect(error).toMatchObject({ name: 'IdentityError', code: 'ERR_CERTIFICATE' })
        }
      }),
      { numRuns: 2000 },
    )
  })
})

describe('random bytes', () => {
  it('are no certificate', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(isAccepted([bytes])).toBe(false)
        expect(isAccepted([...chain.slice(0, 1), bytes])).toBe(false)
      }),
      { numRuns: 1000 },
    )
  })
})

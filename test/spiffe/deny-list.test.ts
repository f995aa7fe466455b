import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { serialFromHex, serialOf } from '../../spiffe/certificate.ts'
import {
  createDenyList,
  type DenyRule,
  denialText,
  denyNothing,
  describeRule,
  type Presented,
} from '../../spiffe/deny-list.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'

const id = fc
  .constantFrom('a', 'b', 'c')
  .map((name) => parseSpiffeId(`spiffe://td.example/${name}`))
const serial = fc.integer({ min: 1, max: 4 }).map((byte) => serialOf(Buffer.of(byte)))
const authorityId = fc.constantFrom('aa', 'bb', 'cc')
const target = fc.oneof(
  id.map((it) => ({ kind: 'id', id: it }) as const),
  serial.map((it) => ({ kind: 'serial', serial: it }) as const),
  authorityId.map((it) => ({ kind: 'authority', authorityId: it }) as const),
)
const rules = fc.array(
  fc.record({
    id: fc.uuid(),
    target,
    reason: fc.string(),
    expiresAt: fc.constantFrom(0, 1, 50, 100),
  }),
  { maxLength: 6 },
)
const presented = fc.record({ id, serial, authorityIds: fc.array(authorityId, { maxLength: 3 }) })
const now = fc.integer({ min: 0, max: 120 })

/** Every rule in turn, as the words say it. */
function isDenied(list: readonly DenyRule[], shown: Presented, at: number): boolean {
  return list.some(({ target: it, expiresAt }) => {
    if (expiresAt !== 0 && at >= expiresAt) return false
    if (it.kind === 'id') return it.id === shown.id
    if (it.kind === 'serial') return it.serial === shown.serial
    return shown.authorityIds.includes(it.authorityId)
  })
}

describe('a deny-list', () => {
  it('denies what one of its living rules names, and nothing else', () => {
    fc.assert(
      fc.property(rules, presented, now, (list, shown, at) => {
        const denyList = createDenyList(list)
        const rule = denyList.against(shown, at)
        expect(rule !== undefined).toBe(isDenied(list, shown, at))
        if (rule !== undefined) expect(isDenied([rule], shown, at)).toBe(true)
        const bare = { ...shown, authorityIds: [] }
        const alone = denyList.againstId(shown.id, at) ?? denyList.againstSerial(shown.serial, at)
        expect(alone !== undefined).toBe(isDenied(list, bare, at))
      }),
    )
  })

  it('with one rule more never allows more', () => {
    fc.assert(
      fc.property(rules, rules, presented, now, (list, more, shown, at) => {
        const before = createDenyList(list).against(shown, at)
        const after = createDenyList([...list, ...more]).against(shown, at)
        expect(before === undefined || after !== undefined).toBe(true)
      }),
    )
  })

  it('that is empty denies nobody', () => {
    fc.assert(
      fc.property(presented, now, (shown, at) => denyNothing.against(shown, at) === undefined),
    )
  })

  it('says what is denied and why', () => {
    const rule = { id: '', target: { kind: 'authority', authorityId: 'aa' }, expiresAt: 0 } as const
    expect(describeRule({ ...rule, reason: 'stolen' })).toBe(
      'authority aa is on the deny-list: stolen',
    )
    expect(describeRule({ ...rule, reason: '' })).toBe('authority aa is on the deny-list')
    expect(denialText({ ...rule, reason: 'stolen' })).toBe('authority aa is on the deny-list')
  })
})

describe('a serial from hex', () => {
  it('is what serialOf makes of the same bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 20 }), (bytes) => {
        expect(serialFromHex(Buffer.from(bytes).toString('hex'))).toBe(serialOf(bytes))
      }),
    )
  })
  it.each(['', 'a', 'A1', '0x01', 'zz', '01 02', '00'.repeat(21)])('is none: %j', (text) => {
    expect(serialFromHex(text)).toBeUndefined()
  })
})

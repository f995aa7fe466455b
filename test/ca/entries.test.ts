import { create, type MessageInitShape } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { entryFromWire, updatedEntry } from '../../ca/entries.ts'
import { entryToWire } from '../../ca/wire.ts'
import { EntryMaskSchema, EntrySchema } from '../../proto/gen/spire/api/types/entry_pb.js'
import { hasCode } from '../../spiffe/errors.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { refusalOf } from '../support/refusal.ts'
import { testEntry } from '../support/rows.ts'

type Init = Extract<MessageInitShape<typeof EntrySchema>, { $typeName?: never }>

const trustDomain = parseTrustDomain('example.org')
const now = 1_900_000_000_500
const id = (path: string, domain = 'example.org') => ({ trustDomain: domain, path })
const good: Init = {
  spiffeId: id('/web'),
  parentId: id('/spire/agent/a'),
  selectors: [{ type: 'unix', value: 'uid:1000' }],
}
const read = (change: Init = {}, at?: string) =>
  entryFromWire(create(EntrySchema, { ...good, ...change }), trustDomain, now, at)

const many = <T>(count: number, item: T): T[] => Array.from({ length: count }, () => item)
const foreign = 'is not of trust domain example.org'

/** Field, what is wrong, what is said of it. */
type Wrong = readonly [string, Init, string]

const wrong: readonly Wrong[] = [
  ['id', { id: 'a/b' }, 'is not 1 to 255 of letters, digits, dot, hyphen, underscore'],
  ['id', { id: 'a'.repeat(256) }, 'is not 1 to 255 of letters, digits, dot, hyphen, underscore'],
  ['spiffe_id', { spiffeId: id('/web', 'other.org') }, `spiffe://other.org/web ${foreign}`],
  ['spiffe_id', { spiffeId: id('') }, 'spiffe://example.org has no path'],
  [
    'spiffe_id',
    { spiffeId: id('/spire/agent/x') },
    'spiffe://example.org/spire/agent/x lies under the reserved path /spire',
  ],
  [
    'spiffe_id',
    { spiffeId: id('/spire') },
    'spiffe://example.org/spire lies under the reserved path /spire',
  ],
  [
    'spiffe_id',
    { spiffeId: id('/a//b') },
    '"spiffe://example.org/a//b" is no SPIFFE ID: the path has an empty segment or a trailing slash',
  ],
  ['spiffe_id', { spiffeId: id('web') }, 'has a path that does not start with a slash'],
  ['spiffe_id', { spiffeId: id('.evil.test/web') }, 'has a path that does not start with a slash'],
  ['parent_id', { parentId: id('/a', 'other.org') }, `spiffe://other.org/a ${foreign}`],
  ['parent_id', { parentId: id('') }, 'spiffe://example.org has no path'],
  ['selectors', { selectors: [] }, 'an entry needs a selector'],
  ['selectors', { selectors: many(65, { type: 'a', value: 'b' }) }, 'more than 64 selectors'],
  ...[
    { type: '', value: 'x' },
    { type: 'a:b', value: 'x' },
    { type: 'a'.repeat(256), value: 'x' },
    { type: 'unix', value: '' },
    { type: 'unix', value: 'x'.repeat(1025) },
  ].map((one): Wrong => {
    const form = 'a selector is type:value, with a type of letters and digits and a value'
    return ['selectors', { selectors: [one] }, form]
  }),
  ['x509_svid_ttl', { x509SvidTtl: -1 }, 'is not 0 to 86400 seconds'],
  ['x509_svid_ttl', { x509SvidTtl: 86_401 }, 'is not 0 to 86400 seconds'],
  ['jwt_svid_ttl', { jwtSvidTtl: 86_401 }, 'is not 0 to 86400 seconds'],
  ['hint', { hint: 'h'.repeat(1025) }, 'is longer than 1024 bytes'],
  ['hint', { hint: 'ż'.repeat(513) }, 'is longer than 1024 bytes'],
  ['dns_names', { dnsNames: many(65, 'a') }, 'more than 64 names'],
  ...['A.example', '-a', 'a..b', 'a.', '*', 'a.*.b', 'a b', 'a\n', `${'x'.repeat(64)}.b`].map(
    (name): Wrong => {
      const dnsNames = ['good.example', name]
      return ['dns_names', { dnsNames }, `${JSON.stringify(name)} is no DNS name in lower case`]
    },
  ),
  ['expires_at', { expiresAt: -1n }, 'is out of range'],
  ['expires_at', { expiresAt: 253_402_300_800n }, 'is out of range'],
  ['federates_with', { federatesWith: ['example.org'] }, 'example.org is our own trust domain'],
  [
    'federates_with',
    { federatesWith: ['Other.org'] },
    '"Other.org" is no SPIFFE ID: the trust domain may contain only a-z, 0-9, dot, hyphen and underscore',
  ],
  ['federates_with', { federatesWith: many(257, 'b.org') }, 'too many trust domains'],
]

describe('an entry from outside', () => {
  it.each(wrong)('is refused, and %s is named', (field, change, problem) => {
    const found = refusalOf(() => read(change, 'entries[3]'))
    expect(found).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: `entries[3].${field}: ${problem}`,
    })
  })

  it('is refused without its IDs', () => {
    const { spiffeId: _, ...anonymous } = good
    expect(
      refusalOf(() => entryFromWire(create(EntrySchema, anonymous), trustDomain, now)),
    ).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: 'entry.spiffe_id: is missing',
    })
  })

  it('is told of all fields at once', () => {
    try {
      read({ x509SvidTtl: -1, hint: 'h'.repeat(1025), selectors: [] })
      expect.unreachable()
    } catch (error) {
      if (!hasCode(error, 'ERR_BAD_REQUEST')) throw error
      expect(error.fields.map(({ field }) => field)).toEqual([
        'entry.selectors',
        'entry.x509_svid_ttl',
        'entry.hint',
      ])
      expect(error.message).toBe('entry.selectors: an entry needs a selector (and 2 more)')
    }
  })

  it('has an id of its own making, or ours', () => {
    expect(read({ id: 'mine-1' }).id).toBe('mine-1')
    expect(read().id).toMatch(/^[0-9a-f-]{36}$/)
    expect(read().id).not.toBe(read().id)
  })

  it('ID-16 has an ID of 2048 bytes', () => {
    const path = `/${'x'.repeat(2048 - 'spiffe://example.org/'.length)}`
    expect(read({ spiffeId: id(path) }).spiffeId).toHaveLength(2048)
  })

  it('ID-17 has no ID of 2049 bytes', () => {
    const path = `/${'x'.repeat(2049 - 'spiffe://example.org/'.length)}`
    const found = refusalOf(() => read({ spiffeId: id(path) }))
    expect(found?.code).toBe('ERR_BAD_REQUEST')
    expect(found?.message).toMatch(/^entry\.spiffe_id: .*it is longer than 2048 bytes$/)
  })

  it('WA-14 has hints up to 1024 bytes, lifetimes up to a day, wildcards in front', () => {
    const edge = { hint: 'h'.repeat(1024), x509SvidTtl: 86_400, dnsNames: ['*.a.example', 'x'] }
    expect(read(edge)).toMatchObject(edge)
  })
})

const segment = fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/)
const label = fc.stringMatching(/^[a-z0-9]{1,10}$/)
const anyEntry: fc.Arbitrary<Init> = fc.record({
  id: fc.stringMatching(/^[A-Za-z0-9._-]{1,40}$/),
  spiffeId: segment.map((it) => id(`/w/${it}`)),
  parentId: segment.map((it) => id(`/spire/agent/${it}`)),
  selectors: fc.array(
    fc.record({ type: label, value: fc.string({ minLength: 1, maxLength: 20 }) }),
    {
      minLength: 1,
      maxLength: 5,
    },
  ),
  x509SvidTtl: fc.nat(86_400),
  jwtSvidTtl: fc.nat(86_400),
  federatesWith: fc.array(
    label.map((it) => `${it}.test`),
    { maxLength: 3 },
  ),
  admin: fc.boolean(),
  downstream: fc.boolean(),
  expiresAt: fc.nat(2 ** 31 - 1).map(BigInt),
  dnsNames: fc.array(label, { maxLength: 3 }),
  storeSvid: fc.boolean(),
  hint: fc.string({ maxLength: 20 }),
  additionalAttributes: fc.record({
    disableX509SvidPrefetch: fc.boolean(),
    jwtSvidIncludeJti: fc.boolean(),
  }),
})

describe('R10 every field of an entry', () => {
  it('R10 comes back from a round trip, each in its own place', () => {
    fc.assert(
      fc.property(anyEntry, (init) => {
        const row = entryFromWire(create(EntrySchema, init), trustDomain, now)
        const back = create(EntrySchema, entryToWire(row))
        const createdAt = 1_900_000_000n
        expect(back).toEqual(create(EntrySchema, { ...init, createdAt, revisionNumber: 0n }))
      }),
    )
  })

  it('R10 is chosen by its own mask alone', () => {
    const row = read({ id: 'e', hint: 'h', admin: true, dnsNames: ['a'], federatesWith: ['b.org'] })
    const whole = create(EntrySchema, entryToWire(row))
    const names = EntrySchema.fields.map(({ localName }) => localName).filter((it) => it !== 'id')
    for (const name of names) {
      const only = create(EntrySchema, { id: 'e' })
      Reflect.set(only, name, Reflect.get(whole, name))
      const mask = create(EntryMaskSchema, { [name]: true })
      expect(create(EntrySchema, entryToWire(row, mask)), name).toEqual(only)
    }
    expect(create(EntrySchema, entryToWire(row, create(EntryMaskSchema)))).toEqual(
      create(EntrySchema, { id: 'e' }),
    )
  })
})

describe('an update', () => {
  const known = testEntry('e', { hint: 'old', admin: true, revision: 4, createdAt: 77 })
  const wanted = testEntry('other', { hint: 'new', dnsNames: ['n'], revision: 99, createdAt: 1 })

  it('without a mask replaces the whole entry but for what is its own', () => {
    expect(updatedEntry(known, wanted, undefined)).toEqual({
      ...wanted,
      id: 'e',
      revision: 5,
      createdAt: 77,
    })
  })

  it('takes what the mask names, and nothing more', () => {
    const mask = create(EntryMaskSchema, { hint: true })
    expect(updatedEntry(known, wanted, mask)).toEqual({ ...known, hint: 'new', revision: 5 })
    const none = create(EntryMaskSchema)
    expect(updatedEntry(known, wanted, none)).toEqual({ ...known, revision: 5 })
  })

  it('of the additional attributes takes both', () => {
    const mask = create(EntryMaskSchema, { additionalAttributes: true })
    const change = { disablePrefetch: true, includeJti: true }
    expect(updatedEntry(known, { ...wanted, ...change }, mask)).toEqual({
      ...known,
      ...change,
      revision: 5,
    })
  })
})

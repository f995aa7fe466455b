// When bundles of other trust domains are fetched, by a clock of our own and from real servers.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { fetchBundles, intervalOf } from '../../ca/bundle-fetching.ts'
import { createForeignBundles } from '../../ca/foreign-bundles.ts'
import { openRegistry } from '../../ca/registry.ts'
import type { RelationshipRow } from '../../ca/store/model.ts'
import type { Store } from '../../ca/store/store.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import {
  type Endpoint,
  type ForeignDomain,
  foreignDomain,
  startEndpoint,
} from '../support/bundle-endpoint.ts'
import { type MemoryLog, memoryLog } from '../support/ca.ts'
import { createFakeClock, type FakeClock } from '../support/fake-clock.ts'
import { testStore } from '../support/store.ts'

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const patience = { timeout: 60_000 }
const own = parseTrustDomain('example.org')
const other = parseTrustDomain('other.test')
const endpointId = parseSpiffeId('spiffe://other.test/spire/server')

let all: AsyncDisposableStack
let store: Store
let clock: FakeClock
let log: MemoryLog
let domain: ForeignDomain
let endpoint: Endpoint
beforeEach(async () => {
  all = new AsyncDisposableStack()
  store = all.use(await testStore())
  clock = createFakeClock(Date.now())
  log = memoryLog()
  domain = foreignDomain('other.test')
  endpoint = all.use(await startEndpoint(domain.credential(endpointId), domain.document()))
})
afterEach(() => all.disposeAsync())

const firstBundle = () => ({
  trustDomain: other,
  x509: [{ der: domain.root, tainted: false }],
  ...{ jwt: [], wit: [], refreshHint: 0, sequence: '0' },
})

async function relate(url = endpoint.url, bundle = firstBundle()): Promise<RelationshipRow> {
  const row = { trustDomain: other, url, endpointId }
  const isThere = (await store.federation.relationship(other)) !== undefined
  await store.federation.setRelationship(row, isThere ? 'present' : 'absent', bundle)
  return row
}

/** Waits are as long as they are said to be; those after failures are a tenth. */
async function start() {
  const { federation } = store
  const registry = all.use(await openRegistry(store, own))
  const foreignBundles = createForeignBundles({
    ...{ own: () => bundleOf(own, []), federation, clock, log: log.log },
    web: { privateAddresses: false },
  })
  const options = { clock, log: log.log, development: false, random: () => 0 }
  return all.use(fetchBundles({ foreignBundles, registry, store }, options))
}

const lines = (text: string) => log.lines.filter((line) => line.includes(text)).length
const sequence = async () => (await store.federation.bundle(other))?.sequence

describe('a bundle is fetched', () => {
  it('FE-3 at the start and every five minutes when it has no hint', async () => {
    await relate()
    await start()
    await clock.asleep()
    expect([endpoint.asked, await sequence()]).toEqual([1, '1'])
    await clock.advance(5 * minute - 1)
    expect(endpoint.asked).toBe(1)
    await clock.advance(1)
    await clock.asleep()
    expect(endpoint.asked).toBe(2)
    expect(lines('another bundle')).toBe(1)
  })

  it('FE-3 TB-3 as its newest hint says', async () => {
    endpoint.says(domain.document({ refreshHint: 1800, sequence: 2n }))
    await relate()
    await start()
    await clock.asleep()
    endpoint.says(domain.document({ refreshHint: 120, sequence: 3n }))
    await clock.advance(30 * minute - 1)
    expect(endpoint.asked).toBe(1)
    await clock.advance(1)
    await clock.asleep()
    expect([endpoint.asked, await sequence()]).toEqual([2, '3'])
    await clock.advance(2 * minute)
    await clock.asleep()
    expect(endpoint.asked).toBe(3)
  })

  it.each([
    [0, 0, 5 * minute],
    [0, 0.5, 4.75 * minute],
    [600, 0, 10 * minute],
    [600, 0.999, 9.001 * minute],
    [1, 0.5, minute],
    [Number.MAX_SAFE_INTEGER, 0, 24 * hour],
  ])('TB-12 hint %d s, drawn %d: after %d ms', (refreshHint, drawn, wait) => {
    const pace = { floor: minute, random: () => drawn }
    expect(intervalOf({ refreshHint }, pace)).toBeCloseTo(wait, 3)
  })

  it('as soon as a relationship is there, and from where it says by now', async () => {
    await start()
    await relate()
    await log.says('another bundle')
    await clock.asleep()
    const moved = all.use(
      await startEndpoint(domain.credential(endpointId), domain.document({ sequence: 2n })),
    )
    await relate(moved.url)
    await vi.waitFor(async () => expect(await sequence()).toBe('2'), patience)
    await clock.asleep()
    await clock.advance(5 * minute)
    await clock.asleep()
    expect([endpoint.asked, moved.asked]).toEqual([1, 2])
  })

  it('FE-24 no more when the relationship is over; the bundle stays', async () => {
    await relate()
    await start()
    await clock.asleep()
    await store.federation.deleteRelationship(other)
    await vi.waitFor(() => expect(clock.sleepers).toBe(0), patience)
    await clock.advance(24 * hour)
    expect([endpoint.asked, await sequence()]).toEqual([1, '1'])
  })
})

describe('a bundle that cannot be fetched', () => {
  it('FE-23 leaves the last one and one line; it is tried again, later each time', async () => {
    await relate()
    await start()
    await clock.asleep()
    await endpoint.goesAway()
    for (const wait of [300, 6, 12, 24, 30]) {
      await clock.advance(wait * second - 1)
      expect(clock.sleepers).toBe(1)
      await clock.advance(1)
      await clock.asleep()
    }
    expect(await sequence()).toBe('1')
    expect(lines('no bundle from another trust domain')).toBe(1)
    expect(lines('ECONNREFUSED')).toBe(1)
    await endpoint.comesBack()
    await clock.advance(30 * second)
    await clock.asleep()
    expect(endpoint.asked).toBe(2)
    expect(lines('come again')).toBe(1)
    // as often as before
    await clock.advance(5 * minute - 1)
    expect(endpoint.asked).toBe(2)
    await clock.advance(1)
    await clock.asleep()
    expect(endpoint.asked).toBe(3)
  })

  it('for another reason is another line', async () => {
    await relate()
    await endpoint.goesAway()
    await start()
    await clock.asleep()
    await endpoint.comesBack()
    endpoint.says('{}')
    await clock.advance(6 * second)
    await clock.asleep()
    await clock.advance(12 * second)
    await clock.asleep()
    expect(lines('no bundle from another trust domain')).toBe(2)
    expect(lines('keys is missing')).toBe(1)
  })

  it('TB-2 FE-25b because its sequence goes back leaves one line too', async () => {
    endpoint.says(domain.document({ sequence: 5n }))
    await relate()
    await start()
    await clock.asleep()
    endpoint.says(domain.document({ sequence: 4n, x509: [domain.root, foreignDomain('b').root] }))
    for (const wait of [300, 6, 12]) {
      await clock.advance(wait * second)
      await clock.asleep()
    }
    expect(endpoint.asked).toBe(4)
    expect(lines('sequence 4 is before 5')).toBe(1)
    expect(await store.federation.bundle(other)).toMatchObject({ sequence: '5', x509: [{}] })
  })

  it('FE-19 for want of a bundle that vouches for its endpoint is fetched when that one is set', async () => {
    await relate(endpoint.url, { ...firstBundle(), x509: [] })
    await start()
    await log.says('no X.509 authority of other.test is known')
    await clock.asleep()
    await store.federation.setBundle(firstBundle(), 'any')
    await log.says('come again')
    expect(await sequence()).toBe('1')
  })

  it('keeps nobody from stopping', async () => {
    const asked = Promise.withResolvers<void>()
    endpoint.says(() => asked.resolve())
    await relate()
    const running = await start()
    await asked.promise
    await running[Symbol.asyncDispose]()
    expect([clock.sleepers, lines('no bundle')]).toEqual([0, 0])
  })
})

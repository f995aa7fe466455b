// Stores for tests: in memory unless a place is named.
import { openStore, type StoreLocation } from '../../ca/store/open.ts'
import type { Store } from '../../ca/store/store.ts'
import { type Clock, systemClock } from '../../runtime/clock.ts'

export interface TestStore {
  readonly location?: StoreLocation
  readonly clock?: Clock
  readonly replica?: string
  readonly trustDomain?: string
}

export function testStore(options: TestStore = {}): Promise<Store> {
  const { location = { path: ':memory:' }, clock = systemClock, replica = '' } = options
  return openStore(location, { trustDomain: options.trustDomain ?? 'example.org', clock, replica })
}

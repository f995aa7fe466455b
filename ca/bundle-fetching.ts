// When the bundles of other trust domains are fetched: at the start, when a relationship is new or other than
// it was, and then as often as each bundle asks for (SPIFFE Federation §4.1).
import { type Backoff, createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { createLatest, type Latest, type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { explain } from '../spiffe/errors.ts'
import { trustDomainOf } from '../spiffe/id.ts'
import { type ForeignBundles, relationshipKey } from './foreign-bundles.ts'
import type { Registry } from './registry.ts'
import type { FederatedBundleRow, RelationshipRow } from './store/model.ts'
import type { FederationTable } from './store/store.ts'

const second = 1000
const minute = 60 * second
const usual = 5 * minute
const longest = 24 * 60 * minute
const floors = { product: minute, development: second } as const

export interface FetchingOptions {
  readonly clock: Clock
  readonly log: Log
  /** lowers the floor of refresh hints from a minute to a second */
  readonly development: boolean
  /** uniform in [0, 1) */
  readonly random?: () => number
}

interface Parts {
  readonly foreignBundles: ForeignBundles
  readonly registry: Pick<Registry, 'subscribe'>
  readonly store: { readonly federation: Pick<FederationTable, 'relationships'> }
}

interface Pace {
  /** milliseconds between two fetches at least */
  readonly floor: number
  readonly random: () => number
}

/** Milliseconds until a bundle is fetched again: as its hint says, or up to a tenth earlier. */
export function intervalOf(
  { refreshHint }: Pick<FederatedBundleRow, 'refreshHint'>,
  { floor, random }: Pace,
): number {
  const wanted = refreshHint === 0 ? usual : Math.min(refreshHint * second, longest)
  return Math.max(wanted * (1 - random() / 10), floor)
}

/** One relationship whose bundle is fetched until it is disposed. */
interface Follower extends AsyncDisposable {
  readonly key: string
  /** A bundle or relationship changed: who fails for want of it tries at once. */
  changed(trustDomain: string): void
}

function follow(
  relationship: RelationshipRow,
  foreignBundles: ForeignBundles,
  { clock, log: all, ...pace }: Pace & Pick<FetchingOptions, 'clock' | 'log'>,
): Follower {
  const { trustDomain, url, endpointId } = relationship
  const log = all.child({ trustDomain, url, endpointId })
  const concerns = [trustDomain, ...(endpointId === undefined ? [] : [trustDomainOf(endpointId)])]
  let interval = intervalOf({ refreshHint: 0 }, pace)
  let failure: string | undefined
  let backoff: Backoff | undefined
  let pause = new AbortController()

  /** Milliseconds until the next try. */
  function failed(error: unknown): number {
    const reason = explain(error)
    if (reason !== failure)
      log.warn({ err: error }, 'no bundle from another trust domain; the last one stays')
    failure = reason
    backoff ??= createBackoff({ first: pace.floor, cap: interval, random: pace.random })
    return backoff.next()
  }

  async function fetched(signal: AbortSignal): Promise<number> {
    try {
      interval = intervalOf(await foreignBundles.refresh(relationship, { signal }), pace)
    } catch (error) {
      signal.throwIfAborted()
      return failed(error)
    }
    if (failure !== undefined) log.info('bundles of another trust domain come again')
    failure = undefined
    backoff = undefined
    return interval
  }

  const loop = run(async (signal) => {
    while (!signal.aborted) {
      // before the try: what changes during it may be what it wants
      pause = new AbortController()
      const wait = await fetched(signal)
      const end = failure === undefined ? signal : AbortSignal.any([signal, pause.signal])
      await clock.sleep(wait, { signal: end }).catch(() => signal.throwIfAborted())
    }
  })
  return {
    key: relationshipKey(relationship),
    changed: (name) => void (concerns.some((it) => it === name) && pause.abort()),
    [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose](),
  }
}

/** Follows the relationships in the store, whichever replica changes them. */
export function fetchBundles(
  { foreignBundles, registry, store }: Parts,
  { clock, log, development, random = Math.random }: FetchingOptions,
): Running {
  const floor = floors[development ? 'development' : 'product']
  let followers: readonly Follower[] = []

  /** Stops what is over or other than it was, starts what is new. */
  async function adjust(): Promise<void> {
    const rows = await store.federation.relationships()
    const wanted = new Map(rows.map((row) => [relationshipKey(row), row]))
    const staying = followers.filter(({ key }) => wanted.has(key))
    const leaving = followers.filter(({ key }) => !wanted.has(key))
    for (const { key } of staying) wanted.delete(key)
    const starting = [...wanted.values()].map((row) =>
      follow(row, foreignBundles, { clock, log, floor, random }),
    )
    followers = [...staying, ...starting]
    await stop(leaving)
  }

  async function adjustOrRetry(wake: Latest<true>, signal: AbortSignal): Promise<void> {
    try {
      await adjust()
    } catch (error) {
      log.error({ err: error }, 'the relationships with other trust domains cannot be read')
      await clock.sleep(floor, { signal })
      wake.push(true)
    }
  }

  return run(async (signal) => {
    using wake = createLatest<true>(signal)
    using _ = registry.subscribe((change) => {
      if (change.kind !== 'federation') return
      for (const follower of followers) follower.changed(change.trustDomain)
      wake.push(true)
    })
    wake.push(true)
    try {
      for await (const __ of wake) await adjustOrRetry(wake, signal)
    } finally {
      await stop(followers)
    }
  })
}

async function stop(followers: readonly Follower[]): Promise<void> {
  await Promise.all(followers.map((it) => it[Symbol.asyncDispose]()))
}

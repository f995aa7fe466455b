// Keeps the workloads' SVIDs fresh: a new key for each, batches, each at its own fixed point; what is
// still good is kept while the authority is away.
import { generateKeyPairSync } from 'node:crypto'
import type { X509SVID } from '../proto/gen/spire/api/types/x509svid_pb.js'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Running, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import type { Tracer } from '../runtime/tracing/span.ts'
import { bareCsr } from '../spiffe/csr.ts'
import type { AgentCounts, RequestOutcome } from './counts.ts'
import type { AgentEntry } from './entries.ts'
import type { Knowledge } from './knowledge.ts'
import type { SvidCache } from './svid-cache.ts'

/** Asks the authority; the answers are in the order of `params`. A missing one was refused. */
export type RequestSvids = (
  params: readonly { readonly entryId: string; readonly csr: Uint8Array }[],
) => Promise<readonly (X509SVID | undefined)[]>

export interface RenewalOptions {
  readonly cache: SvidCache
  readonly knowledge: Knowledge
  readonly request: RequestSvids
  readonly counts: Pick<AgentCounts, 'requests'>
  readonly tracer: Tracer
  readonly clock: Clock
  readonly log: Log
}

const largestBatch = 100
const longestWait = 60_000

/** Renews one batch; false when a part of it was refused. */
async function renewBatch(
  batch: readonly AgentEntry[],
  { cache, request, counts }: RenewalOptions,
): Promise<boolean> {
  let left = batch.length
  const count = (outcome: RequestOutcome, by = 1) => {
    left -= by
    counts.requests.add({ kind: 'x509', outcome }, by)
  }
  using _ = { [Symbol.dispose]: () => count('failed', left) }
  const made = batch.map((entry) => {
    const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    return {
      entry,
      key: keys.privateKey.export({ format: 'der', type: 'pkcs8' }),
      csr: bareCsr(keys),
    }
  })
  const answers = await request(made.map(({ entry, csr }) => ({ entryId: entry.id, csr })))
  let isWhole = true
  for (const [i, { entry, key }] of made.entries()) {
    const answer = answers[i]
    if (answer === undefined) {
      isWhole = false
      count('refused')
      continue
    }
    cache.take(entry, answer, key)
    count('done')
  }
  cache.tell()
  return isWhole
}

async function renewDue(options: RenewalOptions): Promise<boolean> {
  options.cache.sweep()
  const due = options.cache.due()
  let isWhole = true
  for (let at = 0; at < due.length; at += largestBatch) {
    const batch = due.slice(at, at + largestBatch)
    const attributes = { 'castellan.svids': batch.length }
    const renewed = await options.tracer.span('svids.renew', { attributes }, () =>
      renewBatch(batch, options),
    )
    isWhole = renewed && isWhole
  }
  return isWhole
}

/** Waits `ms` or until `woken` is resolved; leaves no timer behind. */
async function pause(
  ms: number,
  woken: Promise<void>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const own = new AbortController()
  const slept = clock.sleep(ms, { signal: AbortSignal.any([signal, own.signal]) }).catch(() => {})
  await Promise.race([slept, woken])
  own.abort()
  signal.throwIfAborted()
}

export function renewSvids(options: RenewalOptions): Running {
  const { cache, knowledge, clock, log } = options
  return run(async (signal) => {
    let wake = Promise.withResolvers<void>()
    using _ = knowledge.onChange(() => wake.resolve())
    using __ = cache.onWanted(() => wake.resolve())
    const backoff = createBackoff({ first: 200, cap: 30_000 })
    while (!signal.aborted) {
      wake = Promise.withResolvers()
      const isWhole = await renewDue(options).catch((error: unknown) => {
        if (!signal.aborted) log.warn({ err: error }, 'SVIDs were not renewed; tried again')
        return false
      })
      if (isWhole) backoff.reset()
      // inside what is left: an SVID of seconds cannot wait for a backoff of a minute
      const wait = isWhole
        ? cache.untilNext()
        : Math.max(Math.min(backoff.next(), cache.shortestLife() / 5), 50)
      await pause(Math.min(wait, longestWait), wake.promise, clock, signal)
    }
  })
}

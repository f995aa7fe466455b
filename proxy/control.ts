// The stream to the agent: policies and endpoints come in, acknowledgements and reports go out. While
// the agent is away, what it said last stays in force.
import { createClient } from '@connectrpc/connect'
import type { Endpoint } from '../client/endpoint.ts'
import { openTransport, securityHeader } from '../client/transport.ts'
import { explainCounts } from '../decisions/counts.ts'
import type { Tally } from '../decisions/tally.ts'
import { Sidecar } from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { createBackoff } from '../runtime/backoff.ts'
import { createLatest, run } from '../runtime/lifecycle.ts'
import type { Identities } from './identity.ts'
import { type Report, vitalsReport } from './reports.ts'
import { createStateTaker, type StateOptions } from './state.ts'

export interface ControlOptions extends StateOptions {
  readonly endpoint: Endpoint
  readonly tally: Tally
  readonly identities: Identities
  /** what this sidecar serves as its identity, and which services it looks for */
  readonly services: ProxyServices
}

export interface ProxyServices {
  /** `address` as host:port */
  readonly served: readonly { readonly service: string; readonly address: string }[]
  readonly wanted: readonly string[]
}

const betweenCounts = 200
const betweenVitals = 1000

interface Outbox {
  push(report: Report): void
  /** Ends when the signal is aborted. */
  drain(signal: AbortSignal): AsyncGenerator<Report, void, void>
}

function createOutbox(): Outbox {
  const waiting: Report[] = []
  let wake = () => {}
  return {
    push(report) {
      waiting.push(report)
      wake()
    },
    async *drain(signal) {
      while (!signal.aborted) {
        const [next] = waiting.splice(0, 1)
        if (next !== undefined) yield next
        else {
          const woken = Promise.withResolvers<void>()
          wake = woken.resolve
          signal.addEventListener('abort', wake, { once: true })
          await woken.promise
          signal.removeEventListener('abort', wake)
        }
      }
    },
  }
}

/** Sends what was counted, as long as the stream is open. */
async function reportCounts(options: ControlOptions, outbox: Outbox, signal: AbortSignal) {
  const { tally, clock } = options
  using changes = createLatest<true>(signal)
  using _ = tally.subscribe(() => changes.push(true))
  changes.push(true)
  for await (const _change of changes) {
    const counts = tally.take()
    if (counts !== undefined) {
      const value = await explainCounts(counts)
      outbox.push({ report: { case: 'decisions', value } })
    }
    await clock.sleep(betweenCounts, { signal })
  }
}

async function reportVitals(options: ControlOptions, outbox: Outbox, signal: AbortSignal) {
  const { identities, tally, clock } = options
  const push = () => {
    const report = vitalsReport(identities, tally)
    if (report !== undefined) outbox.push(report)
  }
  using _rotations = identities.subscribe(push)
  using changes = createLatest<number>(signal)
  using _failures = tally.subscribe(() => changes.push(tally.failures))
  let sent = -1
  changes.push(tally.failures)
  for await (const failures of changes) {
    if (failures === sent) continue
    sent = failures
    push()
    await clock.sleep(betweenVitals, { signal })
  }
}

function reportServices({ identities, services }: ControlOptions, outbox: Outbox): void {
  const spiffeId = identities.current()?.svid.id
  const served = services.served.map((it) => ({ ...it, spiffeId: spiffeId ?? '' }))
  const value = { served: spiffeId === undefined ? [] : served, wanted: [...services.wanted] }
  outbox.push({ report: { case: 'services', value } })
}

type Take = ReturnType<typeof createStateTaker>

async function follow(
  options: ControlOptions,
  { take, opened }: { readonly take: Take; readonly opened: () => void },
  signal: AbortSignal,
) {
  const outbox = createOutbox()
  await using loops = new AsyncDisposableStack()
  using local = openTransport(options.endpoint, { interceptors: [securityHeader] })
  const client = createClient(Sidecar, local.transport)
  let isOpen = false
  for await (const state of client.subscribe(outbox.drain(signal), { signal })) {
    outbox.push(take(state))
    if (isOpen) continue
    isOpen = true
    opened()
    reportServices(options, outbox)
    loops.use(options.identities.subscribe(() => reportServices(options, outbox)))
    // nothing is taken off the tally before there is someone to tell
    loops.use(run((stop) => reportCounts(options, outbox, stop)))
    loops.use(run((stop) => reportVitals(options, outbox, stop)))
  }
}

/** Runs until disposed. */
export function startControl(options: ControlOptions): AsyncDisposable {
  const { clock, log } = options
  const take = createStateTaker(options)
  return run(async (signal) => {
    const backoff = createBackoff({ first: 100, cap: 10_000 })
    while (!signal.aborted) {
      const attempt = new AbortController()
      try {
        const either = AbortSignal.any([signal, attempt.signal])
        await follow(options, { take, opened: backoff.reset }, either)
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, 'no policies from the agent at present')
      } finally {
        attempt.abort()
      }
      await clock.sleep(backoff.next(), { signal })
    }
  })
}

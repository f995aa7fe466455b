// The stream to the agent: policies and endpoints come in, acknowledgements and reports go out. While
// the agent is away, what it said last stays in force.
import { createClient } from '@connectrpc/connect'
import { denyListOf } from '../client/deny-list.ts'
import type { Endpoint } from '../client/endpoint.ts'
import { openTransport, securityHeader } from '../client/transport.ts'
import { compile } from '../policies/compile.ts'
import { readPolicies } from '../policies/read.ts'
import { Sidecar, type SidecarState } from '../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { createBackoff } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Address, address } from '../runtime/config.ts'
import { createLatest, run } from '../runtime/lifecycle.ts'
import type { Log } from '../runtime/log.ts'
import { explain, IdentityError } from '../spiffe/errors.ts'
import type { Identities } from './identity.ts'
import type { Mesh, MeshState } from './mesh.ts'
import { explainCounts, type Report, vitalsReport } from './reports.ts'
import type { Tally } from './tally.ts'

export interface ControlOptions {
  readonly endpoint: Endpoint
  readonly mesh: Mesh
  readonly tally: Tally
  readonly identities: Identities
  readonly log: Log
  readonly clock: Clock
}

const betweenCounts = 200
const betweenVitals = 1000

function addressOf(text: string, service: string): Address {
  const result = address.safeParse(text)
  if (result.success) return result.data
  const shown = JSON.stringify(text)
  throw new IdentityError('ERR_BAD_REQUEST', `endpoint ${service}: ${shown} is no address`)
}

/** Throws ERR_POLICY or ERR_BAD_REQUEST when a part of it cannot be used: then no part is. */
export function meshStateOf({ policies, endpoints, denyList }: SidecarState): MeshState {
  const files = policies?.files ?? []
  const rootNamespace = policies?.rootNamespace ?? ''
  const read = readPolicies(files.map(({ name, text }) => ({ name, text })))
  return {
    policies: rootNamespace === '' ? compile(read) : compile(read, { rootNamespace }),
    endpoints: new Map(
      endpoints.map(({ service, addresses }) => [
        service,
        addresses.map((text) => addressOf(text, service)),
      ]),
    ),
    denyList: denyListOf(denyList),
  }
}

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

/** What is denied is denied, whatever else of the state cannot be used. */
function keepDenying({ denyList }: SidecarState, mesh: Mesh): void {
  try {
    mesh.put({ ...mesh.current(), denyList: denyListOf(denyList) })
  } catch {
    // the list itself is what cannot be read: the former one stays with the rest
  }
}

/** Puts `state` into force; the acknowledgement says so, or why not. */
function take(state: SidecarState, { mesh, log }: ControlOptions): Report {
  const { version } = state
  try {
    mesh.put(meshStateOf(state))
    log.info({ version: String(version) }, 'policies in force')
    return { report: { case: 'ack', value: { version } } }
  } catch (error) {
    log.error({ version: String(version), err: error }, 'policies refused, the former stay')
    keepDenying(state, mesh)
    return { report: { case: 'ack', value: { version, refusal: explain(error) } } }
  }
}

/** Sends what was counted, as long as the stream is open. */
async function reportCounts(options: ControlOptions, outbox: Outbox, signal: AbortSignal) {
  const { tally, clock, log } = options
  using changes = createLatest<true>(signal)
  using _ = tally.subscribe(() => changes.push(true))
  changes.push(true)
  for await (const _change of changes) {
    const counts = tally.take()
    if (counts !== undefined) {
      const value = await explainCounts(counts)
      for (const { reason } of value.denials) log.info({ reason }, 'denied')
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

async function follow(options: ControlOptions, signal: AbortSignal, opened: () => void) {
  const outbox = createOutbox()
  await using loops = new AsyncDisposableStack()
  using local = openTransport(options.endpoint, { interceptors: [securityHeader] })
  const client = createClient(Sidecar, local.transport)
  let isOpen = false
  for await (const state of client.subscribe(outbox.drain(signal), { signal })) {
    outbox.push(take(state, options))
    if (isOpen) continue
    isOpen = true
    opened()
    // nothing is taken off the tally before there is someone to tell
    loops.use(run((stop) => reportCounts(options, outbox, stop)))
    loops.use(run((stop) => reportVitals(options, outbox, stop)))
  }
}

/** Runs until disposed. */
export function startControl(options: ControlOptions): AsyncDisposable {
  const { clock, log } = options
  return run(async (signal) => {
    const backoff = createBackoff({ first: 100, cap: 10_000 })
    while (!signal.aborted) {
      const attempt = new AbortController()
      try {
        await follow(options, AbortSignal.any([signal, attempt.signal]), backoff.reset)
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, 'no policies from the agent at present')
      } finally {
        attempt.abort()
      }
      await clock.sleep(backoff.next(), { signal })
    }
  })
}

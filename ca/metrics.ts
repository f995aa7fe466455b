// What operators watch, counted as it happens; what is looked up when it is asked for is in gauges.ts.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry as Metrics } from 'prom-client'
import type { Asked } from './issuing.ts'

export interface CaMetrics {
  readonly registry: Metrics
  /** an SVID was asked for: delivered, or refused */
  asked(asked: Asked): void
  /** one gRPC call ended; `code` as in google.rpc.Code */
  call(method: string, code: number, ms: number): void
  /** one commit of the store, done or not */
  commit(ms: number, isDone: boolean): void
  /** the server's own SVID was renewed, or could not be: then without its end, in ms since the epoch */
  serverSvid(notAfter?: number): void
}

const seconds = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10]

/** Every label has few values: kinds, codes and methods are sets that this program closes. */
function createIssuance(registers: Metrics[]) {
  const issued = new Counter({
    name: 'castellan_ca_issued_total',
    help: 'SVIDs delivered, by what was asked for',
    labelNames: ['kind'],
    registers,
  })
  const refused = new Counter({
    name: 'castellan_ca_refused_total',
    help: 'SVIDs that were asked for and not delivered, by what was asked for and why',
    labelNames: ['kind', 'reason'],
    registers,
  })
  const took = new Histogram({
    name: 'castellan_ca_issue_seconds',
    help: 'from the question for an SVID to its delivery, durable and read back',
    labelNames: ['kind'],
    buckets: seconds,
    registers,
  })
  return ({ kind, ms, refusal }: Asked): void => {
    if (refusal === undefined) {
      issued.inc({ kind })
      took.observe({ kind }, ms / 1000)
    } else refused.inc({ kind, reason: refusal })
  }
}

function createServerSvid(registers: Metrics[]) {
  const expires = new Gauge({
    name: 'castellan_ca_server_svid_expires_seconds',
    help: "end of the authority's own SVID, seconds since the epoch; 0 before the first",
    registers,
  })
  const renewals = new Counter({
    name: 'castellan_ca_server_svid_renewals_total',
    help: "new SVIDs of the authority's own, the first one too, by whether they could be had",
    labelNames: ['outcome'],
    registers,
  })
  // a rate needs a beginning
  for (const outcome of ['done', 'failed']) renewals.inc({ outcome }, 0)
  return (notAfter?: number): void => {
    renewals.inc({ outcome: notAfter === undefined ? 'failed' : 'done' })
    if (notAfter !== undefined) expires.set(notAfter / 1000)
  }
}

export function createMetrics(): CaMetrics {
  const registry = new Metrics()
  // in ms: the default, 10, would wake an idle authority a hundred times a second
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  const registers = [registry]
  const calls = new Histogram({
    name: 'castellan_ca_call_seconds',
    help: 'gRPC calls by method and status code',
    labelNames: ['method', 'code'],
    buckets: seconds,
    registers,
  })
  const commits = new Histogram({
    name: 'castellan_ca_store_commit_seconds',
    help: 'commits of the store, by whether they got to the disk',
    labelNames: ['done'],
    buckets: seconds,
    registers,
  })
  for (const done of ['true', 'false']) commits.zero({ done })
  return {
    registry,
    asked: createIssuance(registers),
    serverSvid: createServerSvid(registers),
    commit: (ms, isDone) => commits.observe({ done: String(isDone) }, ms / 1000),
    call: (method, code, ms) => calls.observe({ method, code: String(code) }, ms / 1000),
  }
}

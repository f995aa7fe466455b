// What operators watch.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry as Metrics } from 'prom-client'
import type { Authorities } from './authorities/authorities.ts'
import type { Registry } from './registry.ts'

export interface CaMetrics {
  readonly registry: Metrics
  /** one certificate was delivered */
  issued(kind: string): void
  /** one gRPC call ended; `code` as in google.rpc.Code */
  call(method: string, code: number, ms: number): void
  /** one commit of the store, done or not */
  commit(ms: number, isDone: boolean): void
  /** The authority is open: what it knows is shown from now on. */
  show(shown: Shown): void
}

export interface Shown {
  readonly registry: Registry
  readonly authorities: Authorities
  /** why the authority is not ready; undefined when it is */
  readonly notReady: () => string | undefined
  readonly openStreams: () => number
}

export function createMetrics(): CaMetrics {
  const registry = new Metrics()
  // in ms: the default, 10, would wake an idle authority a hundred times a second
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  const registers = [registry]
  const issued = new Counter({
    name: 'castellan_ca_issued_total',
    help: 'SVIDs delivered, by what was asked for',
    labelNames: ['kind'],
    registers,
  })
  const calls = new Histogram({
    name: 'castellan_ca_call_seconds',
    help: 'gRPC calls by method and status code',
    labelNames: ['method', 'code'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
    registers,
  })
  const commits = new Histogram({
    name: 'castellan_ca_store_commit_seconds',
    help: 'commits of the store, by whether they got to the disk',
    labelNames: ['done'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
    registers,
  })

  function show({ registry: known, authorities, notReady, openStreams }: Shown): void {
    gauge('castellan_ca_ready', '1 when it can sign and store', () =>
      Number(notReady() === undefined),
    )
    gauge('castellan_ca_entries', 'registration entries', () => known.entries.size)
    gauge('castellan_ca_agents', 'attested agents', () => known.agents.size)
    gauge('castellan_ca_deny_rules', 'rules of the deny-list', () => known.denyRules().length)
    gauge('castellan_ca_streams', 'open gRPC streams', openStreams)
    const { jwt, wit } = authorities
    for (const [kind, slots] of Object.entries({ x509: authorities, jwt, wit })) {
      gauge(
        `castellan_ca_${kind}_authorities`,
        `published authorities of kind ${kind}`,
        () => slots.all().length,
      )
      gauge(
        `castellan_ca_${kind}_authority_expires_seconds`,
        `end of the active authority of kind ${kind}, seconds since the epoch`,
        () => (slots.all().find(({ state }) => state === 'active')?.notAfter ?? 0) / 1000,
      )
    }
  }

  function gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  }

  return {
    registry,
    issued: (kind) => issued.inc({ kind }),
    commit: (ms, isDone) => commits.observe({ done: String(isDone) }, ms / 1000),
    show,
    call: (method, code, ms) => calls.observe({ method, code: String(code) }, ms / 1000),
  }
}

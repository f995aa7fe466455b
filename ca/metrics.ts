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
}

export function createMetrics(
  known: Registry,
  authorities: Authorities,
  openStreams: () => number,
): CaMetrics {
  const registry = new Metrics()
  // in ms: the default, 10, would wake an idle authority a hundred times a second
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  const registers = [registry]
  const issued = new Counter({
    name: 'castellan_ca_issued_total',
    help: 'X.509-SVIDs delivered',
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
  gauge('castellan_ca_entries', 'registration entries', () => known.entries.size)
  gauge('castellan_ca_agents', 'attested agents', () => known.agents.size)
  gauge('castellan_ca_streams', 'open gRPC streams', openStreams)
  gauge(
    'castellan_ca_authorities',
    'X.509 authorities in the bundle',
    () => authorities.all().length,
  )
  gauge(
    'castellan_ca_authority_expires_seconds',
    'end of the active authority, seconds since the epoch',
    () => {
      const active = authorities.all().find(({ state }) => state === 'active')
      return (active?.certificate.notAfter ?? 0) / 1000
    },
  )

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
    call: (method, code, ms) => calls.observe({ method, code: String(code) }, ms / 1000),
  }
}

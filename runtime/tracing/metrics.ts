// What became of spans, for operators: a trace that is not there may have been lost on its way.
import { Counter, type Registry } from 'prom-client'
import type { Tracer } from './span.ts'

/** Registered with `registry` as `<prefix>_spans_total`; read when it is asked. */
export function showSpans(
  registry: Registry,
  prefix: string,
  { counts }: Pick<Tracer, 'counts'>,
): void {
  new Counter({
    name: `${prefix}_spans_total`,
    help: 'spans of traces, by whether the collector took them',
    labelNames: ['outcome'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [outcome, count] of Object.entries(counts())) this.inc({ outcome }, count)
    },
  })
}

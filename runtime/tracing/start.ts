// Tracing, on or off. What is off is not loaded, and every span of it is an empty function.
import type { Clock } from '../clock.ts'
import type { Log } from '../log.ts'
import type { TracingConfig } from './config.ts'
import { type Attributes, type Tracing, tracesNothing } from './span.ts'

export interface TracingOptions {
  /** who sends: `service.name` and what tells it from others */
  readonly resource: Attributes
  readonly clock: Clock
  readonly log: Log
}

export const tracingOff: Tracing = {
  tracer: tracesNothing,
  async [Symbol.asyncDispose]() {},
}

/** Throws ERR_CONFIG. A collector that is away is no reason not to start. */
export async function startTracing(
  config: TracingConfig | undefined,
  { resource, clock, log }: TracingOptions,
): Promise<Tracing> {
  if (config === undefined) return tracingOff
  const { openCollector, mayRetry } = await import('./collector.ts')
  const { createExporter } = await import('./exporter.ts')
  const { createTracer } = await import('./tracer.ts')
  const { hostname } = await import('node:os')
  const whole = { ...resource, 'service.version': '0.1.0', 'host.name': hostname() }
  const exporter = createExporter({ send: openCollector(config, whole), mayRetry, clock, log })
  const { sample } = config
  log.info({ otlp: config.otlp, sample }, 'tracing')
  return {
    tracer: createTracer({ clock, sample, ...exporter }),
    [Symbol.asyncDispose]: () => exporter[Symbol.asyncDispose](),
  }
}

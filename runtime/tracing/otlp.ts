// Spans as OpenTelemetry's collectors take them: OTLP 1.x, JSON over HTTP. Ids are hex, times are texts of
// nanoseconds, numbers that are whole are texts too.
import type { Attributes } from './span.ts'
import type { FinishedSpan } from './tracer.ts'

const kinds = { internal: 1, server: 2, client: 3 } as const
const failed = 2
/** of a span's flags: that it is sampled */
const sampled = 1

/** Whole microseconds are exact in a number; nanoseconds are not. */
const nanoseconds = (ms: number) => `${Math.round(ms * 1000)}000`

function anyValueOf(value: string | number | boolean) {
  if (typeof value === 'string') return { stringValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value }
}

const keyValues = (attributes: Attributes) =>
  Object.entries(attributes).map(([key, value]) => ({ key, value: anyValueOf(value) }))

function spanOf(span: FinishedSpan) {
  const { context, failure, parentId, attributes, marks } = span
  const type = failure === undefined ? {} : { 'error.type': failure.type }
  return {
    traceId: context.traceId,
    spanId: context.spanId,
    ...(parentId === undefined ? {} : { parentSpanId: parentId }),
    flags: sampled,
    name: span.name,
    kind: kinds[span.kind],
    startTimeUnixNano: nanoseconds(span.start),
    endTimeUnixNano: nanoseconds(span.end),
    attributes: keyValues({ ...attributes, ...type }),
    events: marks.map(({ name, at }) => ({ name, timeUnixNano: nanoseconds(at) })),
    status: failure === undefined ? {} : { code: failed, message: failure.message },
  }
}

/** The body of one request; `resource` says who sends it. */
export function otlpBody(resource: Attributes, spans: readonly FinishedSpan[]): string {
  return JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: keyValues(resource) },
        scopeSpans: [{ scope: { name: 'castellan' }, spans: spans.map(spanOf) }],
      },
    ],
  })
}

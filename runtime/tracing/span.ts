// What is traced, and the tracer of who traces nothing: it does the work and no more.
import type { TraceContext } from './trace-context.ts'

export type Attributes = Readonly<Record<string, string | number | boolean>>

export interface Span {
  readonly context: TraceContext
  /** A moment within it. */
  mark(name: string): void
  set(attributes: Attributes): void
  /** With why it did not succeed, if it did not; the second end is none. */
  end(error?: unknown): void
}

export interface SpanOptions {
  readonly kind?: 'internal' | 'server' | 'client'
  readonly attributes?: Attributes
  /** whom it belongs to; who is at work now, when left out */
  readonly parent?: TraceContext | undefined
}

export interface TraceCounts {
  /** spans that the collector has taken */
  readonly sent: number
  /** spans that were lost: the collector is away, or slow, or refuses them */
  readonly dropped: number
}

export interface Tracer {
  /** false: whoever would work for a span only need not */
  readonly isOn: boolean
  /** Does `work` as a span that ends with it; what begins meanwhile belongs to it. */
  span<T>(name: string, options: SpanOptions, work: (span: Span) => Promise<T>): Promise<T>
  /** A span that ends when its owner says so. */
  begin(name: string, options: SpanOptions): Span
  /** What begins during `work` belongs to `span`. */
  within<T>(span: Span, work: () => T): T
  counts(): TraceCounts
}

/** A tracer and what sends its spans; disposing sends those that are left, within two seconds. */
export interface Tracing extends AsyncDisposable {
  readonly tracer: Tracer
}

export const tracesNoSpan: Span = {
  context: { traceId: '0'.repeat(32), spanId: '0'.repeat(16), isSampled: false },
  mark() {},
  set() {},
  end() {},
}

export const tracesNothing: Tracer = {
  isOn: false,
  span: (_, __, work) => work(tracesNoSpan),
  begin: () => tracesNoSpan,
  within: (_, work) => work(),
  counts: () => ({ sent: 0, dropped: 0 }),
}

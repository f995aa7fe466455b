// Spans and whose they are: the one at work now is parent of what begins, across every await.
import { AsyncLocalStorage } from 'node:async_hooks'
import { hasCode } from '../../spiffe/errors.ts'
import type { Clock } from '../clock.ts'
import { type Attributes, type Span, type SpanOptions, type Tracer, tracesNoSpan } from './span.ts'
import { newSpanId, newTraceId, type TraceContext } from './trace-context.ts'

export interface FinishedSpan {
  readonly name: string
  readonly kind: NonNullable<SpanOptions['kind']>
  readonly context: TraceContext
  /** undefined for the first of a trace */
  readonly parentId: string | undefined
  /** milliseconds since the epoch, with fractions */
  readonly start: number
  readonly end: number
  readonly attributes: Attributes
  readonly marks: readonly { readonly name: string; readonly at: number }[]
  readonly failure: { readonly type: string; readonly message: string } | undefined
}

export interface TracerOptions {
  readonly clock: Clock
  /** part of the traces that begin here and are recorded, 0 to 1; a parent's word is followed */
  readonly sample: number
  readonly take: (span: FinishedSpan) => void
  readonly counts: Tracer['counts']
}

const mostMarks = 32
/** characters of an error */
const longest = 500

function failureOf(error: unknown): FinishedSpan['failure'] {
  if (error === undefined) return undefined
  const message = (error instanceof Error ? error.message : String(error)).slice(0, longest)
  const type = hasCode(error) ? error.code : error instanceof Error ? error.name : 'error'
  return { type, message }
}

/** By the trace's own id, so that it is one decision for all of it. */
const isChosen = (traceId: string, sample: number) =>
  Number.parseInt(traceId.slice(-13), 16) < sample * 2 ** 52

/** milliseconds: the wall clock is told in whole ones, so it seems to jump by less all the time */
const jitter = 2

/**
 * The time with fractions, in which spans are in order: the wall clock as it was, and the monotonic one since,
 * until somebody sets the time.
 */
function createTimeline(clock: Clock): () => number {
  let offset = Number.NaN
  return () => {
    const ticks = clock.monotonic()
    const now = clock.now() - ticks
    if (!(Math.abs(now - offset) < jitter)) offset = now
    return offset + ticks
  }
}

/** It goes with calls all the same: who is called records no part of the trace either. */
const unrecorded = (context: TraceContext): Span => ({ ...tracesNoSpan, context })

export function createTracer({ clock, sample, take, counts }: TracerOptions): Tracer {
  const working = new AsyncLocalStorage<Span>()
  const timeNow = createTimeline(clock)

  function contextOf(parent: TraceContext | undefined): TraceContext {
    const spanId = newSpanId()
    if (parent !== undefined) return { ...parent, spanId }
    const traceId = newTraceId()
    return { traceId, spanId, isSampled: isChosen(traceId, sample) }
  }

  function begin(name: string, options: SpanOptions): Span {
    const parent = options.parent ?? working.getStore()?.context
    const context = contextOf(parent)
    if (!context.isSampled) return unrecorded(context)
    const start = timeNow()
    const began = clock.monotonic()
    // its own length is true, whoever sets the time meanwhile
    const time = () => start + clock.monotonic() - began
    const { kind = 'internal' } = options
    const marks: { name: string; at: number }[] = []
    let attributes = options.attributes ?? {}
    let isOver = false
    return {
      context,
      mark(mark) {
        if (!isOver && marks.length < mostMarks) marks.push({ name: mark, at: time() })
      },
      set(more) {
        if (!isOver) attributes = { ...attributes, ...more }
      },
      end(error) {
        if (isOver) return
        isOver = true
        const place = { name, kind, context, parentId: parent?.spanId }
        take({ ...place, start, end: time(), attributes, marks, failure: failureOf(error) })
      },
    }
  }

  return {
    isOn: true,
    counts,
    begin,
    within: (span, work) => working.run(span, work),
    async span(name, options, work) {
      const span = begin(name, options)
      try {
        const result = await working.run(span, () => work(span))
        span.end()
        return result
      } catch (error) {
        span.end(error)
        throw error
      }
    },
  }
}

// W3C Trace Context: what is taken over from a caller, and what is not.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  newSpanId,
  newTraceId,
  parseTraceparent,
  traceparentOf,
} from '../../../runtime/tracing/trace-context.ts'

const trace = '4bf92f3577b34da6a3ce929d0e0e4736'
const span = '00f067aa0ba902b7'

describe('a traceparent', () => {
  it('is read as the standard has it', () => {
    const context = { traceId: trace, spanId: span, isSampled: true }
    expect(parseTraceparent(`00-${trace}-${span}-01`)).toEqual(context)
    expect(parseTraceparent(`00-${trace}-${span}-03`)).toEqual(context)
    expect(parseTraceparent(`00-${trace}-${span}-00`)).toEqual({ ...context, isSampled: false })
    // of a version to come
    expect(parseTraceparent(`cc-${trace}-${span}-01-what-the-future-holds`)).toEqual(context)
  })

  it.each([
    '',
    `ff-${trace}-${span}-01`,
    `00-${trace}-${span}-01-more`,
    `cc-${trace}-${span}-01.more`,
    `00-${'0'.repeat(32)}-${span}-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
    `00-${trace.toUpperCase()}-${span}-01`,
    `00-${trace}-${span}-1`,
    `00-${trace}0-${span}-01`,
    ` 00-${trace}-${span}-01`,
  ])('%j is none', (text) => {
    expect(parseTraceparent(text)).toBeUndefined()
  })

  it('says what was put into it', () => {
    fc.assert(
      fc.property(fc.boolean(), (isSampled) => {
        const context = { traceId: newTraceId(), spanId: newSpanId(), isSampled }
        expect(parseTraceparent(traceparentOf(context))).toEqual(context)
      }),
    )
  })
})

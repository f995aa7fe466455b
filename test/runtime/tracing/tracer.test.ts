// Whose child a span is, when it is recorded, and that nothing happens where nothing is traced.
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../../runtime/clock.ts'
import { tracesNothing } from '../../../runtime/tracing/span.ts'
import { createTracer, type FinishedSpan } from '../../../runtime/tracing/tracer.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { createFakeClock } from '../../support/fake-clock.ts'

function scene({ sample = 1, clock = systemClock } = {}) {
  const spans: FinishedSpan[] = []
  const take = (span: FinishedSpan) => void spans.push(span)
  const tracer = createTracer({ clock, sample, take, counts: () => ({ sent: 0, dropped: 0 }) })
  const named = (name: string) => spans.find((it) => it.name === name)
  return { spans, tracer, named }
}

describe('a span', () => {
  it('belongs to the one that was at work when it began, across awaits and beside others', async () => {
    const { tracer, named, spans } = scene()
    const work = (name: string) =>
      tracer.span(name, {}, async () => {
        await Promise.resolve()
        tracer.begin(`${name}.later`, {}).end()
        await tracer.span(`${name}.inner`, {}, async () => {})
      })
    await Promise.all([work('a'), work('b')])
    for (const name of ['a', 'b']) {
      const { spanId, traceId } = named(name)?.context ?? {}
      for (const child of [named(`${name}.later`), named(`${name}.inner`)]) {
        expect(child?.parentId).toBe(spanId)
        expect(child?.context.traceId).toBe(traceId)
      }
    }
    expect(named('a')?.parentId).toBeUndefined()
    expect(new Set(spans.map(({ context }) => context.traceId)).size).toBe(2)
    expect(new Set(spans.map(({ context }) => context.spanId)).size).toBe(6)
  })

  it('has its times, marks and attributes, and why it failed', async () => {
    const clock = createFakeClock(1_800_000_000_000)
    const { tracer, named } = scene({ clock })
    const error = new IdentityError('ERR_DENIED', 'not for you')
    const failing = tracer.span('a', { kind: 'server', attributes: { b: 1 } }, async (span) => {
      await clock.advance(5)
      span.mark('half')
      span.set({ c: 'd' })
      await clock.advance(5)
      throw error
    })
    await expect(failing).rejects.toBe(error)
    expect(named('a')).toMatchObject({
      kind: 'server',
      attributes: { b: 1, c: 'd' },
      start: 1_800_000_000_000,
      end: 1_800_000_000_010,
      marks: [{ name: 'half', at: 1_800_000_000_005 }],
      failure: { type: 'ERR_DENIED', message: 'not for you' },
    })
  })

  it('ends once', () => {
    const { tracer, spans } = scene()
    const span = tracer.begin('a', {})
    span.end()
    span.end(new Error('late'))
    expect(spans).toHaveLength(1)
    expect(spans[0]?.failure).toBeUndefined()
  })

  it('is recorded as its parent is; where a trace begins, by the part that is asked for', () => {
    const { tracer, spans } = scene({ sample: 0.25 })
    for (let i = 0; i < 4000; i++) tracer.begin('first', {}).end()
    expect(spans.length).toBeGreaterThan(800)
    expect(spans.length).toBeLessThan(1200)
    spans.length = 0
    const parent = { traceId: 'f'.repeat(32), spanId: '1'.repeat(16) }
    tracer.begin('no', { parent: { ...parent, isSampled: false } }).end()
    tracer.begin('yes', { parent: { ...parent, isSampled: true } }).end()
    expect(spans.map(({ name, parentId }) => [name, parentId])).toEqual([['yes', parent.spanId]])
  })
})

it('is nothing where nothing is traced', async () => {
  expect(await tracesNothing.span('a', {}, async (span) => span.context.isSampled)).toBe(false)
  expect(tracesNothing.begin('a', {})).toBe(tracesNothing.begin('b', {}))
  expect(tracesNothing.within(tracesNothing.begin('a', {}), () => 1)).toBe(1)
})

// Spans on their way to a real HTTP server: in batches, again when it helps, and never in anybody's way.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { systemClock } from '../../../runtime/clock.ts'
import { parseConfig, pathRelativeTo } from '../../../runtime/config.ts'
import { tracingConfig } from '../../../runtime/tracing/config.ts'
import type { Tracing } from '../../../runtime/tracing/span.ts'
import { startTracing, tracingOff } from '../../../runtime/tracing/start.ts'
import { memoryLog } from '../../support/ca.ts'
import { type Collector, startCollector } from '../../support/collector.ts'

const patience = { timeout: 60_000 }
const schema = z.strictObject({ tracing: tracingConfig(pathRelativeTo('/etc/castellan/ca.yaml')) })
const read = (text: string) => parseConfig(`tracing: ${text}`, 'ca.yaml', schema).tracing

let collector: Collector
beforeEach(async () => {
  collector = await startCollector()
})
afterEach(() => collector[Symbol.asyncDispose]())

async function start(url = collector.url): Promise<Tracing & { readonly lines: string[] }> {
  const { log, lines } = memoryLog()
  const resource = { 'service.name': 'test' }
  const tracing = await startTracing(read(`{ otlp: '${url}' }`), {
    resource,
    log,
    clock: systemClock,
  })
  return { ...tracing, lines }
}

function spans({ tracer }: Tracing, count: number): void {
  for (let i = 0; i < count; i++) tracer.begin('a', { attributes: { i } }).end()
}

describe('an exporter', () => {
  it('sends what there is within a moment, in batches that are bounded', async () => {
    await using tracing = await start()
    spans(tracing, 1300)
    await expect.poll(() => collector.spans.length, patience).toBe(1300)
    expect(collector.requests).toBe(3)
    expect(collector.spans[7]).toMatchObject({ service: 'test', name: 'a', attributes: { i: 7 } })
    // the answer to the last batch may still be on its way
    await expect.poll(() => tracing.tracer.counts(), patience).toEqual({ sent: 1300, dropped: 0 })
  })

  it('sends what is left when it ends', async () => {
    {
      await using tracing = await start(`${collector.url}/`)
      spans(tracing, 5)
    }
    expect(collector.spans).toHaveLength(5)
  })

  it('tries again while that may help, and says so once', async () => {
    collector.answers(503)
    await using tracing = await start()
    spans(tracing, 5)
    await expect.poll(() => collector.requests, patience).toBeGreaterThan(1)
    collector.answers(200)
    await expect.poll(() => collector.spans.length, patience).toBe(5)
    expect(tracing.lines.filter((line) => line.includes('do not get'))).toHaveLength(1)
    await expect
      .poll(() => tracing.lines.join(), patience)
      .toContain('spans get to the collector again')
  })

  it.each([400, 302])('drops what is answered with %i, and follows nobody', async (status) => {
    collector.answers(status)
    await using tracing = await start()
    spans(tracing, 5)
    await expect.poll(() => tracing.tracer.counts().dropped, patience).toBe(5)
    expect(collector.requests).toBe(1)
  })

  it('keeps a bounded number, and costs nobody time, while the collector is silent', async () => {
    collector.answers(0)
    const tracing = await start()
    spans(tracing, 5000)
    expect(tracing.tracer.counts()).toEqual({ sent: 0, dropped: 904 })
    await expect.poll(() => collector.requests, patience).toBe(1)
    await tracing[Symbol.asyncDispose]()
    expect(tracing.tracer.counts()).toEqual({ sent: 0, dropped: 5000 })
  })

  it('starts without a collector', async () => {
    await collector[Symbol.asyncDispose]()
    await using tracing = await start()
    spans(tracing, 1)
    await expect.poll(() => tracing.lines.join(), patience).toContain('ECONNREFUSED')
  })

  it('is not there when it is not asked for', async () => {
    const { log } = memoryLog()
    const options = { resource: {}, log, clock: systemClock }
    expect(await startTracing(undefined, options)).toBe(tracingOff)
  })
})

describe('tracing in a configuration', () => {
  it('is a collector, and how much it gets', () => {
    expect(read("{ otlp: 'https://otel.example:4318', sample: 0.1, roots: ./roots.pem }")).toEqual({
      otlp: 'https://otel.example:4318',
      sample: 0.1,
      roots: '/etc/castellan/roots.pem',
    })
    for (const url of ['http://127.0.0.1:4318', 'http://localhost:4318/otlp', 'http://[::1]:4318'])
      expect(read(`{ otlp: '${url}' }`)).toEqual({ otlp: url, sample: 1 })
  })

  it.each([
    ['http://collector.example:4318', 'plain HTTP to another machine'],
    ['http://127.0.0.1.example:4318', 'plain HTTP to another machine'],
    ['grpc://127.0.0.1:4317', 'neither http nor https'],
    ['https://user:secret@collector.example', 'holds more than a host'],
    ['collector', 'is no URL'],
  ])('refuses %s', async (url, problem) => {
    expect(() => read(`{ otlp: '${url}' }`)).toThrow(problem)
  })

  it('never sends to where machine metadata is', async () => {
    await expect(start('https://169.254.169.254')).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('link-local'),
    })
  })

  it('wants roots that can be read', async () => {
    const { log } = memoryLog()
    const config = read("{ otlp: 'https://otel.example', roots: /nowhere.pem }")
    const starting = startTracing(config, { resource: {}, log, clock: systemClock })
    await expect(starting).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('tracing.roots: cannot read /nowhere.pem'),
    })
  })
})

// A collector of OpenTelemetry on loopback: what it was sent, as somebody else reads OTLP.
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { z } from 'zod'

const value = z.union([
  z.strictObject({ stringValue: z.string() }).transform((it) => it.stringValue),
  z.strictObject({ boolValue: z.boolean() }).transform((it) => it.boolValue),
  z.strictObject({ intValue: z.string().regex(/^-?\d+$/) }).transform((it) => Number(it.intValue)),
  z.strictObject({ doubleValue: z.number() }).transform((it) => it.doubleValue),
])
const attributes = z
  .array(z.strictObject({ key: z.string(), value }))
  .transform((list) => Object.fromEntries(list.map((it) => [it.key, it.value])))
const nanoseconds = z.string().regex(/^\d{19}$/)
const spanId = z.string().regex(/^[0-9a-f]{16}$/)
const span = z.strictObject({
  traceId: z.string().regex(/^[0-9a-f]{32}$/),
  spanId,
  parentSpanId: spanId.optional(),
  flags: z.literal(1),
  name: z.string().min(1),
  kind: z.literal([1, 2, 3]),
  startTimeUnixNano: nanoseconds,
  endTimeUnixNano: nanoseconds,
  attributes,
  events: z.array(z.strictObject({ name: z.string(), timeUnixNano: nanoseconds })),
  status: z.strictObject({ code: z.literal(2).optional(), message: z.string().optional() }),
})
const body = z.strictObject({
  resourceSpans: z.tuple([
    z.strictObject({
      resource: z.strictObject({ attributes }),
      scopeSpans: z.tuple([
        z.strictObject({ scope: z.strictObject({ name: z.string() }), spans: z.array(span) }),
      ]),
    }),
  ]),
})

export interface CollectedSpan extends z.infer<typeof span> {
  /** `service.name` of who sent it */
  readonly service: unknown
}

export interface Collector extends AsyncDisposable {
  readonly url: string
  readonly spans: readonly CollectedSpan[]
  /** requests so far, whatever was answered */
  readonly requests: number
  /** status of the answers from now on; 0 is none at all */
  answers(status: number): void
}

export async function startCollector(): Promise<Collector> {
  const spans: CollectedSpan[] = []
  let [status, requests] = [200, 0]

  function take(text: string, response: ServerResponse): void {
    requests++
    if (status === 0) return
    if (status === 200) {
      const [{ resource, scopeSpans }] = body.parse(JSON.parse(text)).resourceSpans
      const service = resource.attributes['service.name']
      spans.push(...scopeSpans[0].spans.map((it) => ({ ...it, service })))
    }
    response.writeHead(status, { location: '/elsewhere', 'content-type': 'application/json' })
    response.end('{}')
  }

  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const isRight =
        request.url === '/v1/traces' && request.headers['content-type'] === 'application/json'
      if (isRight) take(Buffer.concat(parts).toString(), response)
      else response.writeHead(404).end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  return {
    url: `http://127.0.0.1:${port}`,
    spans,
    get requests() {
      return requests
    },
    answers(next) {
      status = next
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
}

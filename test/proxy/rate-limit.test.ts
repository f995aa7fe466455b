// RateLimit as callers meet it, through the sidecar.
import { once } from 'node:events'
import {
  type ClientHttp2Stream,
  createServer as createHttp2,
  type IncomingHttpHeaders,
} from 'node:http2'
import { createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { explainCounts } from '../../decisions/counts.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { stateUnder } from '../support/mesh.ts'
import {
  askPayments,
  authority,
  dialPayments,
  inboundTo,
  openSession,
  payments,
  sourceOf,
  webSvid,
} from '../support/shop.ts'
import {
  type App,
  listening,
  type Sidecar,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'

const source = sourceOf(payments)
const svids = { web: webSvid, other: authority.issue('spiffe://td.example/ns/shop/sa/other') }

const allow = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: all, namespace: shop }
spec: { rules: [{ to: [{ operation: { notPaths: [/denied] } }] }] }
---
`
const limited = (limit: string) => {
  const text = `${allow}apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: slow, namespace: shop }
spec: { limits: [${limit}] }
`
  return stateUnder(text)
}

let app: App
let plain: App
let calls: App
beforeAll(async () => {
  app = await startApp((_, response) => response.end('from the workload'))
  plain = await listening(createServer((socket) => socket.end('welcome')))
  const grpc = createHttp2()
  grpc.on('stream', (stream) => {
    stream.respond(
      { ':status': 200, 'content-type': 'application/grpc' },
      { waitForTrailers: true },
    )
    stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.end()
  })
  calls = await listening(grpc)
})
afterAll(async () => {
  for (const it of [app, plain, calls]) await it[Symbol.asyncDispose]()
})

const clock = createFakeClock(Date.now())
const start = (limit: string, { port } = app, protocol = 'http') =>
  startSidecar(
    { inbound: [inboundTo(port, { protocol })] },
    { source, state: limited(limit), clock },
  )

async function ask(sidecar: Sidecar, path = '/', who: keyof typeof svids = 'web', more = '') {
  const head = `GET ${path} HTTP/1.1\r\nHost: shop\r\n${more || 'Connection: close\r\n'}\r\n`
  const text = await askPayments(sidecar.port, head, svids[who])
  return { status: text.slice(9, 12), after: /retry-after: (\S+)/i.exec(text)?.[1], text }
}

const headersOf = async (stream: ClientHttp2Stream) => {
  const [headers]: IncomingHttpHeaders[] = await once(stream, 'response')
  stream.resume()
  return headers ?? {}
}

describe('a caller that asks too often', () => {
  it('gets 429 and whole seconds to wait, another caller does not', async () => {
    await using sidecar = await start('{ requests: 2, per: 5s }')
    expect((await ask(sidecar)).status).toBe('200')
    expect((await ask(sidecar)).status).toBe('200')
    const refused = await ask(sidecar)
    expect(refused).toMatchObject({ status: '429', after: '3' })
    expect(refused.text).toContain('too many requests')
    expect((await ask(sidecar, '/', 'other')).status).toBe('200')
    await clock.advance(2400)
    expect(await ask(sidecar)).toMatchObject({ status: '429', after: '1' })
    await clock.advance(100)
    expect((await ask(sidecar)).status).toBe('200')
  })

  it('is denied as before what is denied, which costs no token', async () => {
    await using sidecar = await start('{ requests: 1, per: 1h }')
    expect((await ask(sidecar, '/denied')).status).toBe('403')
    expect((await ask(sidecar)).status).toBe('200')
    expect((await ask(sidecar, '/denied')).status).toBe('403')
    expect(await ask(sidecar)).toMatchObject({ status: '429', after: '3600' })
    const counts = sidecar.tally.take()
    expect(counts).toMatchObject({ allowed: 1, denied: 3 })
    const { denials } = await explainCounts(
      counts ?? { allowed: 0, denied: 0, denials: [], flows: [] },
    )
    expect(denials[2]).toMatchObject({
      policy: 'shop/slow',
      rule: 0,
      remedy: '',
      reason: expect.stringMatching(
        /GET \/: too often, by RateLimit shop\/slow, limit 0 \(test\.yaml:\d+\): 1 in 3600000 ms, 1 at once$/,
      ),
    })
  })

  it('keeps its account when policies change and the limit does not', async () => {
    await using sidecar = await start('{ requests: 1, per: 1h }')
    expect((await ask(sidecar)).status).toBe('200')
    sidecar.mesh.put(
      limited(
        '{ requests: 5, per: 1h, to: [{ operation: { paths: [/x] } }] }, { requests: 1, per: 1h }',
      ),
    )
    expect((await ask(sidecar)).status).toBe('429')
    sidecar.mesh.put(limited('{ requests: 2, per: 1h }'))
    expect((await ask(sidecar)).status).toBe('200')
  })

  it('is told so in HTTP/2, in gRPC, and when it asks for a websocket', async () => {
    await using sidecar = await start('{ requests: 1, per: 1h }')
    const http2 = await openSession(sidecar.port)
    expect((await headersOf(http2.request({ ':path': '/' })))[':status']).toBe(200)
    const refused = await headersOf(http2.request({ ':path': '/' }))
    expect(refused).toMatchObject({ ':status': 429, 'retry-after': '3600' })
    http2.destroy()
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n'
    expect(await ask(sidecar, '/', 'web', upgrade)).toMatchObject({ status: '429', after: '3600' })

    await using grpc = await start('{ requests: 1, per: 1h }', calls)
    const client = await openSession(grpc.port)
    const call = () =>
      client.request({ ':method': 'POST', ':path': '/a.B/C', 'content-type': 'application/grpc' })
    const first = call().end()
    expect(await headersOf(first)).toMatchObject({ ':status': 200 })
    expect(await headersOf(call())).toMatchObject({
      ':status': 200,
      'grpc-status': '8',
      'grpc-message': 'too many requests',
      'retry-after': '3600',
    })
    client.destroy()
  })

  it('is closed out on TCP', async () => {
    await using sidecar = await start('{ requests: 1, per: 1h }', plain, 'tcp')
    const open = async () => untilClosed(await dialPayments(sidecar.port))
    // what asks about HTTP is no ALLOW for TCP
    expect(await open()).toBe('')
    const text = `${allow.replace('{ to: [{ operation: { notPaths: [/denied] } }] }', '{}')}apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: slow, namespace: shop }
spec: { limits: [{ requests: 1, per: 1h }] }
`
    sidecar.mesh.put(stateUnder(text))
    expect(await open()).toBe('welcome')
    expect(await open()).toBe('')
  })
})

// Probes: GET and HEAD of exactly one path pass without a decision, for whoever may connect at all.
import { connect } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ask, openCaller } from '../support/local-call.ts'
import { makeTestAuthority, stateOf } from '../support/mesh.ts'
import { askPayments, dialPayments, inboundTo, payments, sourceOf, web } from '../support/shop.ts'
import { type App, type Sidecar, startApp, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(payments)

let app: App
let sidecar: Sidecar
let seen: { line: string; peer: unknown; forged: unknown }[] = []
beforeAll(async () => {
  app = await startApp((message, response) => {
    const { method, url, headers } = message
    const { 'x-spiffe-peer-id': peer, 'x-envoy-forged': forged } = headers
    seen.push({ line: `${method} ${url}`, peer, forged })
    response.end('well')
  })
  app.server.on('upgrade', (_, socket) => socket.destroy())
  sidecar = await startSidecar(
    { inbound: [inboundTo(app.port, { mtls: 'permissive', healthPath: '/healthz' })] },
    { source, state: stateOf('[]') },
  )
})
afterAll(async () => {
  for (const it of [sidecar, app]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
  sidecar.tally.take()
})

const overTls = (lines: string) =>
  askPayments(sidecar.port, `${lines}\r\nConnection: close\r\n\r\n`)

describe('healthPath', () => {
  it('passes without decision, and none is counted', async () => {
    const forged = { 'x-spiffe-peer-id': web, 'x-envoy-forged': 'yes' }
    expect(await ask(sidecar.port, { path: '/healthz', headers: forged })).toMatchObject({
      ...{ status: 200, body: 'well' },
    })
    expect((await ask(sidecar.port, { path: '/healthz', method: 'HEAD' })).status).toBe(200)
    using caller = openCaller(sidecar.port)
    const probe = { ':method': 'GET', ':path': '/healthz', 'content-type': 'text/plain' }
    expect((await caller.call(probe, '')).headers[':status']).toBe(200)
    expect(await overTls('GET /healthz HTTP/1.1\r\nHost: a')).toMatch(/^HTTP\/1.1 200/)
    expect(seen).toEqual([
      { line: 'GET /healthz', peer: undefined, forged: undefined },
      { line: 'HEAD /healthz', peer: undefined, forged: undefined },
      { line: 'GET /healthz', peer: undefined, forged: undefined },
      { line: 'GET /healthz', peer: web, forged: undefined },
    ])
    expect(sidecar.tally.take()).toBeUndefined()
  })

  for (const [what, head] of [
    ['another path', 'GET /healthz2 HTTP/1.1'],
    ['a path below', 'GET /healthz/ HTTP/1.1'],
    ['a query', 'GET /healthz?all HTTP/1.1'],
    ['an empty query', 'GET /healthz? HTTP/1.1'],
    ['another way to write it', 'GET /%68ealthz HTTP/1.1'],
    ['a detour', 'GET /a/../healthz HTTP/1.1'],
    ['absolute form', 'GET http://a/healthz HTTP/1.1'],
    ['another method', 'POST /healthz HTTP/1.1\r\nContent-Length: 0'],
    ['a method of lower case', 'get /healthz HTTP/1.1'],
  ] as const) {
    it(`is no way in for ${what}`, async () => {
      expect(await overTls(`${head}\r\nHost: a`)).toMatch(/^HTTP\/1.1 40[03]/)
      expect(seen).toEqual([])
    })
  }

  it('opens no websocket', async () => {
    const socket = connect(sidecar.port, '127.0.0.1')
    const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
    socket.write(`GET /healthz HTTP/1.1\r\nHost: a\r\n${upgrade}`)
    expect(await untilClosed(socket)).toMatch(/^HTTP\/1.1 403/)
  })

  it('is guarded as all requests are', async () => {
    for (const more of ['Host: a\r\nHost: b', 'Host: a b', 'Host: a\r\nTransfer-Encoding: gzip'])
      expect(await overTls(`GET /healthz HTTP/1.1\r\n${more}`)).toMatch(/^HTTP\/1.1 400/)
    expect(seen).toEqual([])
  })

  it('is for no stranger', async () => {
    const stranger = makeTestAuthority('stranger.example').issue('spiffe://stranger.example/x')
    const socket = await dialPayments(sidecar.port, stranger)
    const answer = untilClosed(socket)
    socket.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n')
    expect(await answer).toBe('')
  })
})

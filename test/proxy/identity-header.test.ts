// The field that says who the peer is, by another name: on both sides, and never taken from anyone else.

import { createServer as createHttp2 } from 'node:http2'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ask, openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import { inboundTo, outboundTo, payments, sourceOf, web } from '../support/shop.ts'
import { type App, listening, startApp, startSidecar } from '../support/sidecar.ts'

const webSource = sourceOf(web)
const paymentsSource = sourceOf(payments)
const forged = { 'x-caller': 'spiffe://td.example/admin', 'x-spiffe-peer-id': 'me', 'x-other': '1' }

let app: App
let grpc: App
let seen: Record<string, unknown>[] = []
beforeAll(async () => {
  app = await startApp((message, response) => {
    seen.push(message.headers)
    response.writeHead(200, forged).end()
  })
  const server = createHttp2()
  server.on('stream', (stream, headers) => {
    seen.push(headers)
    stream.respond(forged, { waitForTrailers: true })
    stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', ...forged }))
    stream.resume().end()
  })
  grpc = await listening(server)
})
afterAll(async () => {
  for (const it of [app, grpc]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
})

const names = { identityHeader: 'x-caller' }

function callee(port: number, more: object = names, state = stateOf('[{}]')) {
  return startSidecar({ ...more, inbound: [inboundTo(port)] }, { source: paymentsSource, state })
}

function caller(port: number) {
  return startSidecar(
    { ...names, outbound: [outboundTo(`127.0.0.1:${port}`)] },
    { source: webSource, state: stateOf('[]') },
  )
}

describe('identityHeader', () => {
  it('is what both sides are told by over HTTP/1.1, and takes the place of what others set', async () => {
    await using inbound = await callee(app.port)
    await using outbound = await caller(inbound.port)
    const { headers } = await ask(outbound.port, { headers: forged })
    expect(seen).toMatchObject([{ 'x-caller': web, 'x-other': '1' }])
    expect(seen[0]).not.toHaveProperty('x-spiffe-peer-id')
    expect(headers).toMatchObject({ 'x-caller': payments, 'x-other': '1' })
    expect(headers).not.toHaveProperty('x-spiffe-peer-id')
  })

  it('is so for gRPC, trailers included', async () => {
    await using inbound = await callee(grpc.port)
    await using outbound = await caller(inbound.port)
    using local = openCaller(outbound.port)
    const { headers, trailers } = await local.call(forged)
    expect(seen).toMatchObject([{ 'x-caller': web, 'x-other': '1' }])
    expect(headers).toMatchObject({ 'x-caller': payments })
    expect(trailers).toMatchObject({ 'grpc-status': '0', 'x-other': '1' })
    for (const it of [seen[0], headers, trailers]) expect(it).not.toHaveProperty('x-spiffe-peer-id')
    expect(trailers).not.toHaveProperty('x-caller')
  })

  it('is not there for policies, whatever a peer sets', async () => {
    const state = stateOf('[{ when: [{ key: "request.headers[x-caller]", values: ["*"] }] }]')
    await using named = await callee(app.port, names, state)
    await using plain = await callee(app.port, {}, state)
    const outbound = [named, plain].map(({ port }) => outboundTo(`127.0.0.1:${port}`))
    // the sidecar of this caller does not know the name
    await using ordinary = await startSidecar(
      { outbound },
      { source: webSource, state: stateOf('[]') },
    )
    const statuses = ordinary.listeners.map(
      async ({ port }) => (await ask(port, { headers: forged })).status,
    )
    expect(await Promise.all(statuses)).toEqual([403, 200])
  })

  it('leaves the default name to nobody else either', async () => {
    await using inbound = await callee(app.port, {})
    await using outbound = await caller(inbound.port)
    await ask(outbound.port, { headers: forged })
    expect(seen).toMatchObject([{ 'x-spiffe-peer-id': web }])
  })
})

// Limits of time of outbound listeners: for connecting, for one attempt, for the whole answer.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { connect, createServer, type Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createFakeClock } from '../support/fake-clock.ts'
import { ask, openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import { type Peer, startPeer } from '../support/peer.ts'
import { authority, outboundTo, payments, sourceOf, web } from '../support/shop.ts'
import { type App, listening, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(web)
const svid = authority.issue(payments)
const patient = { timeout: 20_000 }

let peer: Peer
let grpc: Peer
/** What was asked and has no answer. */
let held: ServerResponse[] = []
let calls: ServerHttp2Stream[] = []
/** It accepts and never says a word. */
let silent: App
let accepted: Socket[] = []
beforeAll(async () => {
  peer = await startPeer({
    svid,
    onRequest(message, response) {
      message.resume()
      if (message.url === '/now') response.end('at once')
      else held.push(response)
    },
  })
  grpc = await startPeer({ svid, onStream: (stream) => void calls.push(stream) })
  silent = await listening(createServer((socket) => void accepted.push(socket)))
})
afterAll(async () => {
  for (const it of [peer, grpc, silent]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  held = []
  calls = []
  accepted = []
})

async function start(destination: string | readonly string[], more: object) {
  const clock = createFakeClock(Date.now())
  const sidecar = await startSidecar(
    { outbound: [outboundTo(destination, more)] },
    { source, state: stateOf('[]'), clock },
  )
  // without those that live as long as the sidecar
  const { sleepers } = clock
  return { ...sidecar, clock, timers: () => clock.sleepers - sleepers }
}

describe('timeout', () => {
  it('answers 504 when nothing has come, and leaves nothing behind', async () => {
    await using sidecar = await start(peer.address, { timeout: '3s', retries: { attempts: 0 } })
    const answer = ask(sidecar.port, { method: 'POST', body: 'hi' })
    await expect.poll(() => held.length, patient).toBe(1)
    await expect.poll(() => sidecar.timers(), patient).toBe(1)
    await sidecar.clock.advance(2999)
    expect(sidecar.tally.failures).toBe(0)
    await sidecar.clock.advance(1)
    expect(await answer).toMatchObject({ status: 504, body: 'no answer in time\n' })
    expect([sidecar.tally.failures, sidecar.timers()]).toEqual([1, 0])
    await expect.poll(() => held[0]?.destroyed, patient).toBe(true)
  })

  it('is over with the answer', async () => {
    await using sidecar = await start(peer.address, { timeout: '3s' })
    expect((await ask(sidecar.port, { path: '/now' })).body).toBe('at once')
    await expect.poll(() => sidecar.timers(), patient).toBe(0)
  })

  it('answers gRPC with DEADLINE_EXCEEDED in trailers only', async () => {
    await using sidecar = await start(grpc.address, { timeout: '3s', protocol: 'grpc' })
    using local = openCaller(sidecar.port)
    const called = local.call()
    await expect.poll(() => calls.length + sidecar.timers(), patient).toBe(2)
    await sidecar.clock.advance(3000)
    const { headers, trailers, body } = await called
    expect(headers).toMatchObject({ ':status': 200, 'grpc-status': '4' })
    expect([trailers, body]).toEqual([{}, ''])
    await expect.poll(() => calls[0]?.destroyed, patient).toBe(true)
  })

  it('cuts an answer that has begun', async () => {
    await using sidecar = await start(peer.address, { timeout: '3s' })
    const socket = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await expect.poll(() => held.length, patient).toBe(1)
    held[0]?.write('so far')
    await once(socket, 'data')
    await sidecar.clock.advance(3000)
    expect(await answer).toMatch(/^HTTP\/1.1 200[\s\S]*so far\r\n$/)

    using local = openCaller(sidecar.port)
    const stream = local.session.request({ ':path': '/' })
    let isWhole = false
    stream.on('error', () => {})
    stream.on('end', () => {
      isWhole = true
    })
    stream.resume()
    await expect.poll(() => held.length, patient).toBe(2)
    held[1]?.write('so far')
    await once(stream, 'response')
    await sidecar.clock.advance(3000)
    if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
    expect(isWhole).toBe(false)
  })

  it('begins when the request has ended', async () => {
    await using sidecar = await start(peer.address, { timeout: '3s' })
    const socket = connect(sidecar.port, '127.0.0.1')
    const answer = untilClosed(socket)
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab')
    await expect.poll(() => held.length, patient).toBe(1)
    await sidecar.clock.advance(60_000)
    expect(sidecar.tally.failures).toBe(0)
    socket.write('cd')
    await expect.poll(() => sidecar.timers(), patient).toBe(1)
    await sidecar.clock.advance(3000)
    expect(await answer).toMatch(/^HTTP\/1.1 504/)
  })

  it('holds for all attempts together', async () => {
    const retries = { perTry: '2s', attempts: 10, on: ['reset'], backoff: '1ms' }
    await using sidecar = await start(peer.address, { timeout: '5s', retries })
    const answer = ask(sidecar.port)
    let isOver = false
    answer.finally(() => {
      isOver = true
    })
    await expect.poll(() => sidecar.clock.advance(1000).then(() => isOver), patient).toBe(true)
    expect((await answer).status).toBe(504)
    expect(held.length).toBeGreaterThan(1)
    expect(held.length).toBeLessThanOrEqual(3)
  })
})

describe('perTry', () => {
  it('gives one endpoint up and asks another', async () => {
    await using quick = await startPeer({ svid, onRequest: (_, response) => response.end('quick') })
    const retries = { perTry: '2s', on: ['reset'], backoff: '1ms' }
    await using sidecar = await start([peer.address, quick.address], {
      ...{ retries, loadBalancing: 'round-robin' },
    })
    const answer = ask(sidecar.port)
    await expect.poll(() => held.length + sidecar.timers(), patient).toBe(2)
    await sidecar.clock.advance(2001)
    expect((await answer).body).toBe('quick')
    await expect.poll(() => held[0]?.destroyed, patient).toBe(true)
  })

  it('answers 504 when nobody else may be asked', async () => {
    await using sidecar = await start(peer.address, { retries: { perTry: '2s' } })
    const answer = ask(sidecar.port, { method: 'POST', body: 'pay' })
    await expect.poll(() => held.length + sidecar.timers(), patient).toBe(2)
    await sidecar.clock.advance(2000)
    expect((await answer).status).toBe(504)
  })
})

describe('connectTimeout', () => {
  const quickly = { connectTimeout: '2s', retries: { attempts: 0 } }

  it('holds without timeout, for all who wait for a connection', async () => {
    await using sidecar = await start(`127.0.0.1:${silent.port}`, quickly)
    using local = openCaller(sidecar.port)
    const plain = ask(sidecar.port)
    const called = [local.call(), local.call()]
    // one connection for the request, one for both calls
    await expect.poll(() => accepted.length + sidecar.timers(), patient).toBe(4)
    await sidecar.clock.advance(2000)
    expect((await plain).status).toBe(502)
    for (const it of await Promise.all(called)) expect(it.headers['grpc-status']).toBe('14')
    expect(sidecar.lines.join('')).toContain('in time')
  })

  it('is of the whole handshake, however the bytes come', async () => {
    await using slow = await listening(
      createServer((socket) => {
        accepted.push(socket)
        // a record of a handshake, of which more and more comes
        socket.write(Buffer.of(0x16, 3, 3, 0x40, 0, 2))
      }),
    )
    await using sidecar = await start(`127.0.0.1:${slow.port}`, quickly)
    const answer = ask(sidecar.port)
    await expect.poll(() => accepted.length, patient).toBe(1)
    for (let i = 0; i < 3; i++) {
      await sidecar.clock.advance(500)
      accepted[0]?.write(Buffer.of(0))
    }
    await sidecar.clock.advance(500)
    expect((await answer).status).toBe(502)
  })

  it('is what a connection of bytes waits at most', async () => {
    await using sidecar = await start(`127.0.0.1:${silent.port}`, { ...quickly, protocol: 'tcp' })
    const socket = connect(sidecar.port, '127.0.0.1')
    const closed = untilClosed(socket)
    await expect.poll(() => accepted.length, patient).toBe(1)
    await sidecar.clock.advance(2000)
    expect(await closed).toBe('')
  })
})

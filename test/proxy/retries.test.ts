// Requests that are asked again, over real sockets: whom, how often, with what body, and when not.
import { constants } from 'node:http2'
import { connect, createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '../../runtime/clock.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { frame, types } from '../support/frames.ts'
import { ask, openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import { type Peer, type PeerOptions, startPeer } from '../support/peer.ts'
import { authority, outboundTo, payments, sourceOf, web } from '../support/shop.ts'
import { listening, type Sidecar, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(web)
const svid = authority.issue(payments)
const patient = { timeout: 20_000 }

/** A port where nobody listens, for as long as nobody else is given it. */
async function deadAddress(): Promise<string> {
  await using gone = await listening(createServer())
  return `127.0.0.1:${gone.port}`
}

const caller = (destination: readonly string[], more: object = {}, clock: Clock = systemClock) =>
  startSidecar(
    { outbound: [outboundTo(destination, { loadBalancing: 'round-robin', ...more })] },
    { source, state: stateOf('[]'), clock },
  )

const peer = (options: Omit<PeerOptions, 'svid'>) => startPeer({ svid, ...options })

let good: Peer
let busy: Peer
let broken: Peer
let dead: string
/** the bodies that were read in whole, by who read them */
const read: string[] = []
beforeAll(async () => {
  good = await peer({
    onRequest: async (message, response) => {
      let text = ''
      for await (const part of message) text += part
      read.push(`good ${message.method} ${text.length}`)
      response.end('good')
    },
  })
  busy = await peer({
    onRequest: async (message, response) => {
      let text = ''
      for await (const part of message) text += part
      read.push(`busy ${message.method} ${text.length}`)
      response.writeHead(503).end('busy')
    },
  })
  broken = await peer({
    onSocket: (socket) => void socket.once('data', () => socket.destroy()),
  })
  dead = await deadAddress()
})
afterAll(async () => {
  for (const it of [good, busy, broken]) await it[Symbol.asyncDispose]()
})

/** The statuses of so many requests, one after the other. */
async function statuses(sidecar: Sidecar, count: number, asked = {}): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await ask(sidecar.port, asked)).status ?? 0)
  return all
}

describe('retries', () => {
  it('go to another endpoint when one cannot be reached, whatever the method, without a word in the spec', async () => {
    await using sidecar = await caller([dead, good.address])
    expect(await statuses(sidecar, 4)).toEqual([200, 200, 200, 200])
    expect(await statuses(sidecar, 4, { method: 'POST', body: 'pay' })).toEqual([
      ...[200, 200, 200],
      200,
    ])
    expect(sidecar.tally.failures).toBe(0)
  })

  it('keep a body of any size until somebody is there to take it', async () => {
    read.length = 0
    await using sidecar = await caller([dead, good.address])
    const body = 'x'.repeat(5_000_000)
    expect(await statuses(sidecar, 2, { method: 'POST', body })).toEqual([200, 200])
    expect(read).toEqual(['good POST 5000000', 'good POST 5000000'])
  })

  it('are not for a spec that says 0', async () => {
    await using sidecar = await caller([dead, good.address], { retries: { attempts: 0 } })
    expect(await statuses(sidecar, 2)).toEqual([502, 200])
    expect(sidecar.tally.failures).toBe(1)
  })

  it('are as many as the spec says', async () => {
    const others = [await deadAddress(), await deadAddress(), good.address]
    await using one = await caller([dead, ...others])
    expect(await statuses(one, 1)).toEqual([502])
    await using three = await caller([dead, ...others], {
      retries: { attempts: 3, backoff: '1ms' },
    })
    expect(await statuses(three, 1)).toEqual([200])
  })

  it('after a reset are for methods that do no harm', async () => {
    const again = { retries: { on: ['reset'], backoff: '1ms' } }
    await using sidecar = await caller([broken.address, good.address], again)
    expect(await statuses(sidecar, 2)).toEqual([200, 200])
    const post = { method: 'POST', body: 'pay' }
    // each POST takes one turn, and nobody takes it again
    expect((await statuses(sidecar, 4, post)).sort()).toEqual([200, 200, 502, 502])
    await using silent = await caller([broken.address, good.address])
    expect((await statuses(silent, 2)).sort()).toEqual([200, 502])
  })

  it('after 503 are for PUT with a small body, and the last answer is passed on', async () => {
    read.length = 0
    const again = { retries: { on: ['gateway-error'], backoff: '1ms' } }
    await using sidecar = await caller([busy.address, good.address], again)
    expect(await statuses(sidecar, 1, { method: 'PUT', body: 'small' })).toEqual([200])
    expect(read).toEqual(['busy PUT 5', 'good PUT 5'])
    expect(await statuses(sidecar, 1, { method: 'PUT', body: 'x'.repeat(100_000) })).toEqual([503])
    await using hopeless = await caller([busy.address], again)
    const answer = await ask(hopeless.port)
    expect([answer.status, answer.body, hopeless.tally.failures]).toEqual([503, 'busy', 0])
    // what nobody wanted was read, so its connection was kept
    expect(hopeless.connections.size).toBe(1)
  })

  it('leave a peer that is not the expected alone, and find the one that is', async () => {
    await using stranger = await startPeer({ svid: authority.issue(web), onRequest() {} })
    await using alone = await caller([stranger.address], { retries: { attempts: 3 } })
    expect(await statuses(alone, 1)).toEqual([502])
    expect(stranger.accepted).toBe(1)
    await using sidecar = await caller([stranger.address, good.address])
    expect(await statuses(sidecar, 2)).toEqual([200, 200])
  })

  it('are never begun once an answer has', async () => {
    let asked = 0
    await using half = await peer({
      onRequest(_, response) {
        asked++
        response.writeHead(200, { 'content-length': 100 })
        response.write('so far', () => response.destroy())
      },
    })
    await using sidecar = await caller([half.address], { retries: { on: ['reset'] } })
    await expect(ask(sidecar.port)).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(asked).toBe(1)
  })

  it('end with the caller', async () => {
    const clock = createFakeClock(Date.now())
    const again = { retries: { backoff: '60s', attempts: 5 } }
    await using sidecar = await caller([dead], again, clock)
    const controller = new AbortController()
    const sleepers = clock.sleepers
    const gone = fetch(`http://127.0.0.1:${sidecar.port}/`, { signal: controller.signal })
    await expect.poll(() => clock.sleepers, patient).toBe(sleepers + 1)
    controller.abort()
    await expect(gone).rejects.toThrow()
    await expect.poll(() => clock.sleepers, patient).toBe(sleepers)
  })

  it('are no storm: of many requests at once three are asked again', async () => {
    let asked = 0
    const held = Promise.withResolvers<void>()
    await using slow = await peer({
      async onRequest(_, response) {
        asked++
        await held.promise
        response.writeHead(503).end()
      },
    })
    const clock = createFakeClock(Date.now())
    const again = { retries: { on: ['gateway-error'], attempts: 5, backoff: '10s' } }
    await using sidecar = await caller([slow.address], again, clock)
    const all = Array.from({ length: 10 }, () => ask(sidecar.port))
    await expect.poll(() => asked, patient).toBe(10)
    held.resolve()
    const done = Promise.all(all)
    let isDone = false
    done.finally(() => {
      isDone = true
    })
    // three wait for their turn, seven have their answer; time passes until the three have theirs
    await expect.poll(() => clock.advance(100_000).then(() => isDone), patient).toBe(true)
    expect((await done).every(({ status }) => status === 503)).toBe(true)
    expect(asked).toBeGreaterThan(10)
    expect(asked).toBeLessThanOrEqual(10 + 3 * 5)
  })

  it('ask another endpoint for a websocket', async () => {
    // one that declines has answered
    const headers = { connection: 'Upgrade', upgrade: 'websocket' }
    await using declining = await peer({
      onRequest: (_, response) => response.writeHead(426).end(),
    })
    await using other = await caller([dead, declining.address])
    expect((await ask(other.port, { headers })).status).toBe(426)
  })
})

describe('retries of gRPC', () => {
  const grpc = { protocol: 'grpc' }
  const trailersOnly = (code: string) => ({
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-status': code,
  })

  async function startService(first: 'refuse' | 'unavailable' | 'reset') {
    let calls = 0
    const it = await peer({
      onStream(stream) {
        calls++
        if (first === 'refuse') return stream.close(constants.NGHTTP2_REFUSED_STREAM)
        if (first === 'reset') return stream.close(constants.NGHTTP2_INTERNAL_ERROR)
        stream.respond(trailersOnly('14'), { endStream: true })
      },
    })
    return {
      address: it.address,
      calls: () => calls,
      [Symbol.asyncDispose]: () => it[Symbol.asyncDispose](),
    }
  }

  let echo: Peer
  beforeAll(async () => {
    echo = await peer({
      onStream(stream) {
        stream.respond({ ':status': 200 }, { waitForTrailers: true })
        stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
        stream.pipe(stream)
      },
    })
  })
  afterAll(() => echo[Symbol.asyncDispose]())

  async function call(first: 'refuse' | 'unavailable' | 'reset', on?: string[]) {
    await using service = await startService(first)
    const retries = { backoff: '1ms', ...(on && { on }) }
    await using sidecar = await caller([service.address, echo.address], { ...grpc, retries })
    using local = openCaller(sidecar.port)
    const { headers, trailers, body } = await local.call()
    const status = headers['grpc-status'] ?? trailers['grpc-status']
    return [status, body, service.calls()]
  }

  it('go elsewhere with a stream that was refused, without a word in the spec', async () => {
    expect(await call('refuse')).toEqual(['0', 'message', 1])
  })

  it('go elsewhere with what a peer that goes away has not begun', async () => {
    const leaving = Buffer.alloc(8)
    await using peerThatLeaves = await peer({
      onSocket(socket) {
        socket.write(frame(types.settings, 0, 0, Buffer.alloc(0)))
        // the last stream that it has begun with is none, and no error
        socket.once('data', () => socket.write(frame(types.goaway, 0, 0, leaving)))
      },
    })
    await using sidecar = await caller([peerThatLeaves.address, echo.address], grpc)
    using local = openCaller(sidecar.port)
    const { trailers, body } = await local.call()
    expect([trailers['grpc-status'], body, peerThatLeaves.accepted]).toEqual(['0', 'message', 1])
  })

  it('of UNAVAILABLE are for those who say so', async () => {
    expect(await call('unavailable')).toEqual(['14', '', 1])
    expect(await call('unavailable', ['unavailable'])).toEqual(['0', 'message', 1])
  })

  it('after a reset are not for a call', async () => {
    expect(await call('reset', ['reset', 'gateway-error', 'unavailable'])).toEqual(['14', '', 1])
  })
})

describe('retries of bytes', () => {
  it('are for connections that did not come about', async () => {
    await using hello = await peer({ onSocket: (socket) => void socket.end('hello') })
    await using sidecar = await caller([dead, hello.address], { protocol: 'tcp' })
    for (let i = 0; i < 4; i++) {
      const socket = connect({ port: sidecar.port, host: '127.0.0.1' })
      const answer = untilClosed(socket)
      socket.end()
      expect(await answer).toBe('hello')
    }
    expect(sidecar.tally.failures).toBe(0)
  })
})

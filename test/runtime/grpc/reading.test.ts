// Clients that do not read: what waits for them is bounded, they are told of, and cut off in the end.
import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import { expect, test, vi } from 'vitest'
import { Echo } from '../../../proto/gen/castellan/test/v1/echo_pb.js'
import { prepared, service } from '../../../runtime/grpc/service.ts'
import { createTopic } from '../../../runtime/lifecycle.ts'
import { startEcho } from '../../support/echo.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { grpcFields, opening, request } from '../../support/frames.ts'
import { rawHeaders, rawSession } from '../../support/raw-grpc.ts'

const path = '/castellan.test.v1.Echo/Expand'
const patience = { timeout: 20_000, interval: 5 }
const minute = 60_000
const turn = () => new Promise((resolve) => setImmediate(resolve))

/** A server that tells all streams the same whenever the test says so. */
async function startTeller() {
  const news = createTopic<Uint8Array>()
  const unread: string[] = []
  const clock = createFakeClock()
  const telling = service(Echo, {
    async *expand(_, { signal }) {
      let next = Promise.withResolvers<Uint8Array>()
      using _news = news.subscribe((message) => next.resolve(message))
      const over = new Promise<undefined>((resolve) => {
        signal.addEventListener('abort', () => resolve(undefined), { once: true })
      })
      for (;;) {
        const message = await Promise.race([next.promise, over])
        if (message === undefined) return
        next = Promise.withResolvers()
        yield prepared(message)
      }
    },
  })
  const echo = await startEcho({
    services: [telling],
    clock,
    reading: {
      late: 30_000,
      dropped: 5 * minute,
      onUnread: ({ method }, what) => unread.push(`${method} is ${what}`),
    },
  })
  return {
    ...{ clock, unread, server: echo.server },
    /** Resolves once every stream that is not held back has written it. */
    async tell(bytes: number): Promise<void> {
      news.publish(new Uint8Array(bytes))
      await turn()
    },
    listeners: () => news.size,
    async [Symbol.asyncDispose]() {
      const closed = echo[Symbol.asyncDispose]()
      await clock.advance(minute)
      await closed
    },
  }
}

type Teller = Awaited<ReturnType<typeof startTeller>>

/** Opens a stream that is read by nobody until it is told to. */
async function listen(session: http2.ClientHttp2Session, { listeners }: Teller) {
  const before = listeners()
  const stream = session.request({ ...rawHeaders, ':path': path })
  stream.on('error', () => {})
  stream.end(Buffer.alloc(5))
  await vi.waitUntil(() => listeners() > before, patience)
  return stream
}

/** A client that opens a stream and then reads nothing at all from its socket. */
async function standStill({ server, listeners }: Teller): Promise<net.Socket> {
  const before = listeners()
  const socket = net.connect({ host: '127.0.0.1', port: server.port })
  await once(socket, 'connect')
  socket.on('error', () => {})
  socket.write(Buffer.concat([opening(), request(1, grpcFields(path))]))
  await vi.waitUntil(() => listeners() > before, patience)
  return socket
}

/** Time passes, and every look at the streams has its answers before the next one. */
async function pass({ clock }: Teller, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 5000) {
    await clock.advance(Math.min(left, 5000))
    await turn()
  }
}

test('what was told is caught up with once every client has taken it from its socket', async () => {
  await using teller = await startTeller()
  const session = await rawSession(teller.server.address)
  for (let i = 0; i < 5; i++) await listen(session, teller)
  const still = await standStill(teller)
  await teller.server.caughtUp()
  await teller.tell(1000)
  const caughtUp = vi.fn()
  const done = teller.server.caughtUp().then(caughtUp)
  await pass(teller, 20_000)
  expect(caughtUp).not.toHaveBeenCalled()
  expect(teller.server.unread()).toEqual([])
  still.resume()
  await pass(teller, 20_000)
  // it has read, but has no library that would answer a PING
  await done
  expect(caughtUp).toHaveBeenCalled()
  expect(teller.server.unread()).toMatchObject([{ method: 'castellan.test.v1.Echo/Expand' }])
  session.destroy()
  still.destroy()
})

test('one that stands still is waited for until it is late, then no more', async () => {
  await using teller = await startTeller()
  const session = await rawSession(teller.server.address)
  await listen(session, teller)
  const still = await standStill(teller)
  await teller.tell(1000)
  const done = teller.server.caughtUp()
  await pass(teller, 35_000)
  await done
  expect(teller.unread).toEqual(['castellan.test.v1.Echo/Expand is late'])
  await teller.tell(1000)
  await teller.server.caughtUp()
  session.destroy()
  still.destroy()
})

test('one that stands still is cut off, with its connection, and others are told on', async () => {
  await using teller = await startTeller()
  const session = await rawSession(teller.server.address)
  const stream = await listen(session, teller)
  let received = 0
  stream.on('data', (chunk: Buffer) => (received += chunk.length))
  const still = await standStill(teller)
  // more than socket and window take
  for (let i = 0; i < 20; i++) {
    await teller.tell(500_000)
    await vi.waitUntil(() => received === (i + 1) * 500_005, patience)
  }
  await pass(teller, 6 * minute)
  expect(teller.unread).toEqual([
    'castellan.test.v1.Echo/Expand is late',
    'castellan.test.v1.Echo/Expand is dropped',
  ])
  await vi.waitUntil(() => teller.server.connections === 1, patience)
  expect(teller.listeners()).toBe(1)
  await teller.tell(1000)
  await vi.waitUntil(() => received === 20 * 500_005 + 1005, patience)
  session.destroy()
  still.destroy()
})

test('a stream that is not read is reset, the others of its connection go on', async () => {
  await using teller = await startTeller()
  const session = await rawSession(teller.server.address)
  const read = await listen(session, teller)
  read.resume()
  const unread = await listen(session, teller)
  const closed = new Promise((resolve) => unread.once('close', resolve))
  for (let i = 0; i < 20; i++) {
    await teller.tell(100_000)
  }
  await pass(teller, 6 * minute)
  await closed
  expect(unread.rstCode).toBe(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM)
  expect(teller.unread.at(-1)).toBe('castellan.test.v1.Echo/Expand is dropped')
  expect([teller.server.connections, teller.listeners()]).toEqual([1, 1])
  session.destroy()
})

test('a stream that ends or goes away is waited for no more', async () => {
  await using teller = await startTeller()
  const still = await standStill(teller)
  await teller.tell(1000)
  const done = teller.server.caughtUp()
  still.destroy()
  await done
})

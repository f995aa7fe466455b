import { once } from 'node:events'
import net from 'node:net'
import * as grpc from '@grpc/grpc-js'
import { expect, test, vi } from 'vitest'
import { startEcho } from '../../support/echo.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { echoClient, gather } from '../../support/grpc-js.ts'
import { rawCall, rawHeaders, rawSession } from '../../support/raw-grpc.ts'
import { makeTestTls } from '../../support/test-tls.ts'

const { CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE } = grpc.status
const allClosed = (server: { openStreams: number }) =>
  vi.waitUntil(() => server.openStreams === 0, { timeout: 20_000, interval: 5 })

const minute = 60_000
const inAMinute = () => ({ deadline: Date.now() + minute })

test('a deadline ends a unary call', async () => {
  const clock = createFakeClock()
  await using echo = await startEcho({ clock })
  using client = echoClient(echo.server.address)
  const hanging = once(echo.events, 'hanging')
  const aborted = once(echo.events, 'aborted')
  const call = client.unary({ hang: true }, inAMinute())
  const refused = expect(call).rejects.toMatchObject({
    code: DEADLINE_EXCEEDED,
    details: 'the deadline of the call has passed',
  })
  await hanging
  await clock.advance(minute)
  await refused
  expect(await aborted).toMatchObject([{ code: 'ERR_DEADLINE' }])
  await allClosed(echo.server)
})

test('of many deadlines each ends its own call, the earliest first', async () => {
  const clock = createFakeClock()
  await using echo = await startEcho({ clock })
  const session = await rawSession(echo.server.address)
  const path = '/castellan.test.v1.Echo/Chat'
  const ended: string[] = []
  const calls = ['9S', '3S', '6S', '200m', '1H'].map((timeout) => {
    const stream = session.request({ ...rawHeaders, ':path': path, 'grpc-timeout': timeout })
    stream.write(Uint8Array.of(0, 0, 0, 0, 0))
    stream.on('trailers', (trailers) => ended.push(`${timeout} ${trailers['grpc-status']}`))
    return { admitted: once(stream, 'data'), ended: once(stream, 'trailers') }
  })
  await Promise.all(calls.map(({ admitted }) => admitted))
  for (const [ms, i] of [
    [200, 3],
    [2800, 1],
    [3000, 2],
    [3000, 0],
  ] as const) {
    await clock.asleep()
    await clock.advance(ms)
    await calls[i]?.ended
  }
  expect(ended).toEqual(['200m 4', '3S 4', '6S 4', '9S 4'])
  session.destroy()
})

test('a deadline ends a stream after its messages', async () => {
  const clock = createFakeClock()
  await using echo = await startEcho({ clock })
  using client = echoClient(echo.server.address)
  const returned = once(echo.events, 'returned')
  const hanging = once(echo.events, 'hanging')
  const stream = client.expand({ count: 3, hang: true }, inAMinute())
  const numbers: number[] = []
  stream.on('data', ({ number }) => numbers.push(number))
  const failed = once(stream, 'error')
  await hanging
  await clock.advance(minute)
  expect(await failed).toMatchObject([{ code: DEADLINE_EXCEEDED }])
  expect(numbers).toEqual([0, 1, 2])
  expect(await returned).toEqual([3])
})

test('a request that never ends is too late as well', async () => {
  await using echo = await startEcho()
  const session = await rawSession(echo.server.address)
  const open = await rawCall(session, undefined, { 'grpc-timeout': '100n' })
  expect(open.headers).toMatchObject({ 'grpc-status': '4' })
  await allClosed(echo.server)
  session.close()
})

test('a cancel aborts a unary handler', async () => {
  await using echo = await startEcho()
  using client = echoClient(echo.server.address)
  const aborted = once(echo.events, 'aborted')
  const hanging = once(echo.events, 'hanging')
  const { call, reply } = client.start({ hang: true })
  await hanging
  call.cancel()
  await expect(reply).rejects.toMatchObject({ code: CANCELLED })
  expect(await aborted).toMatchObject([{ code: 'ERR_CANCELLED', message: 'the caller went away' }])
  await allClosed(echo.server)
})

test('a cancel aborts the signal and returns the generator of a stream', async () => {
  await using echo = await startEcho()
  using client = echoClient(echo.server.address)
  const returned = once(echo.events, 'returned')
  const hanging = once(echo.events, 'hanging')
  const stream = client.expand({ count: 2, hang: true })
  const gathered = gather(stream)
  await hanging
  stream.cancel()
  await expect(gathered).rejects.toMatchObject({ code: CANCELLED })
  expect(await returned).toEqual([2])
  await allClosed(echo.server)
})

test('a cancel ends the requests that a bidirectional handler waits for', async () => {
  await using echo = await startEcho()
  using client = echoClient(echo.server.address)
  const returned = once(echo.events, 'returned')
  const chat = client.chat()
  chat.on('error', () => {})
  chat.write({ text: 'a' })
  await once(chat, 'data')
  chat.cancel()
  expect(await returned).toEqual([1])
  await allClosed(echo.server)
})

test('a lost connection aborts every call on it and is told of once', async () => {
  const gone: string[] = []
  const told = Promise.withResolvers<void>()
  await using echo = await startEcho({
    disconnected(peer) {
      gone.push(peer)
      told.resolve()
    },
  })
  const session = await rawSession(echo.server.address)
  const returned = once(echo.events, 'returned')
  const stream = session.request({ ...rawHeaders, ':path': '/castellan.test.v1.Echo/Chat' })
  stream.on('error', () => {})
  stream.write(Uint8Array.of(0, 0, 0, 0, 0))
  await once(stream, 'data')
  session.destroy()
  await returned
  await told.promise
  expect(echo.server.connections).toBe(0)
  expect(gone).toHaveLength(1)
  await allClosed(echo.server)
})

test('drain ends streams with UNAVAILABLE and lets unary calls finish', async () => {
  const admitted = Promise.withResolvers<void>()
  const entered = Promise.withResolvers<void>()
  const echo = await startEcho({
    drainTimeout: minute,
    authorize: async ({ method, metadata }) => {
      if (method.name !== 'Unary' || !metadata.has('slow')) return
      entered.resolve()
      await admitted.promise
    },
  })
  using client = echoClient(echo.server.address)
  const slow = new grpc.Metadata()
  slow.set('slow', '1')
  const waiting = client.unary({ text: 'in flight' }, {}, slow)
  const streams = Array.from({ length: 5 }, () => gather(client.expand({ count: 1, hang: true })))
  const chat = client.chat()
  chat.write({ text: 'a' })
  await once(chat, 'data')
  await entered.promise
  const drained = echo.server.drain()
  for (const stream of [...streams, gather(chat)]) {
    await expect(stream).rejects.toMatchObject({
      code: UNAVAILABLE,
      details: 'the server is closing',
    })
  }
  admitted.resolve()
  expect(await waiting).toMatchObject({ text: 'in flight' })
  await drained
  await echo.server.drain()
  expect(echo.server).toMatchObject({ openStreams: 0, connections: 0 })
  await expect(client.unary({})).rejects.toMatchObject({ code: UNAVAILABLE })
})

test('drain gives up on unary calls that outlast it', async () => {
  const echo = await startEcho({ drainTimeout: 50 })
  using client = echoClient(echo.server.address)
  const aborted = once(echo.events, 'aborted')
  const hanging = once(echo.events, 'hanging')
  const call = client.unary({ hang: true })
  const failed = expect(call).rejects.toMatchObject({ code: UNAVAILABLE })
  await hanging
  await echo.server.drain()
  await failed
  expect(await aborted).toMatchObject([{ code: 'ERR_UNAVAILABLE' }])
  expect(echo.server).toMatchObject({ openStreams: 0, connections: 0 })
})

test('drain is not held up by a connection that never speaks', async () => {
  const tls = await makeTestTls()
  const echo = await startEcho({ tls })
  const socket = net.connect(echo.server.port, '127.0.0.1')
  await once(socket, 'connect')
  const closed = once(socket, 'close')
  await echo.server.drain()
  await closed
})

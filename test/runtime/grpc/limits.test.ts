import { once } from 'node:events'
import { create, toBinary } from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import { expect, test, vi } from 'vitest'
import { EchoRequestSchema } from '../../../proto/gen/castellan/test/v1/echo_pb.js'
import { encodeFrame } from '../../../runtime/grpc/frame.ts'
import { startEcho } from '../../support/echo.ts'
import { echoClient, gather } from '../../support/grpc-js.ts'
import { rawCall, rawHeaders, rawSession } from '../../support/raw-grpc.ts'

const request = encodeFrame(toBinary(EchoRequestSchema, create(EchoRequestSchema, { text: 'hi' })))
const big = { payload: new Uint8Array(200_000) }
const large4MiB = { payload: new Uint8Array(4_000_000) }
const unlimited = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 }

/** Node closes the last streams a few turns after the answer; that they close at all is the point. */
const allClosed = (server: { openStreams: number }) =>
  vi.waitUntil(() => server.openStreams === 0, { timeout: 20_000, interval: 5 })

test('an oversized message harms no other call of its connection', async () => {
  await using echo = await startEcho({ limits: { messageBytes: 100_000 } })
  using client = echoClient(echo.server.address, undefined, unlimited)
  const others = Array.from({ length: 20 }, () => client.unary({ text: 'beside' }))
  const told = {
    code: grpc.status.RESOURCE_EXHAUSTED,
    details: expect.stringMatching(/^message of 2000\d\d bytes is over the limit of 100000$/),
  }
  // one that takes longer than five seconds is reset, without words
  await vi.waitFor(() => expect(client.unary(big)).rejects.toMatchObject(told), {
    timeout: 60_000,
  })
  await Promise.all(others)
  for (let i = 0; i < 100; i++) await client.unary({ text: 'after' })
  expect(echo.server.connections).toBe(1)
  await allClosed(echo.server)
})

test('150 oversized messages on one connection leak none of its 100 streams', async () => {
  await using echo = await startEcho({ limits: { messageBytes: 100_000 } })
  using client = echoClient(echo.server.address, undefined, unlimited)
  const code = grpc.status.RESOURCE_EXHAUSTED
  for (let i = 0; i < 150; i++) {
    await expect(client.unary(big)).rejects.toMatchObject({ code })
  }
  await expect(client.collect([{}, big, {}])).rejects.toMatchObject({ code })
  const chat = client.chat()
  chat.write(big)
  await expect(gather(chat)).rejects.toMatchObject({ code })
  expect(await client.unary({ text: 'still here' })).toMatchObject({ text: 'still here' })
  expect(echo.server.connections).toBe(1)
  await allClosed(echo.server)
})

test('a connection full of refused requests and others is refused nothing else', async () => {
  await using echo = await startEcho({ limits: { messageBytes: 100_000 } })
  using client = echoClient(echo.server.address, undefined, unlimited)
  const codes = Array.from({ length: 300 }, (_, i) =>
    client.unary(i % 2 === 0 ? big : {}).then(
      () => grpc.status.OK,
      ({ code }) => code,
    ),
  )
  const expected = codes.map((_, i) =>
    i % 2 === 0 ? grpc.status.RESOURCE_EXHAUSTED : grpc.status.OK,
  )
  expect(await Promise.all(codes)).toEqual(expected)
  expect(echo.server.connections).toBe(1)
  await allClosed(echo.server)
})

test('a refused request is answered at its promised end', async () => {
  await using echo = await startEcho({ limits: { messageBytes: 60_000 } })
  const session = await rawSession(echo.server.address)
  const { headers } = await rawCall(session, Uint8Array.of(0, 1, 0, 0, 0))
  expect(headers).toMatchObject({ 'grpc-status': '8' })
  await allClosed(echo.server)
  session.close()
})

const endless = [
  ['after four times the limit', 250_000],
  ['after five seconds', 10],
] as const

test.each(endless)(
  'a refused request without an end is reset %s',
  async (_when, more) => {
    await using echo = await startEcho({ limits: { messageBytes: 60_000 } })
    const session = await rawSession(echo.server.address)
    const stream = session.request(rawHeaders)
    const end = once(stream, 'end')
    stream.write(Uint8Array.of(0, 1, 0, 0, 0))
    stream.write(new Uint8Array(more))
    // gRPC reads this code as RESOURCE_EXHAUSTED
    await expect(end).rejects.toThrow('Stream closed with error code NGHTTP2_ENHANCE_YOUR_CALM')
    await allClosed(echo.server)
    session.close()
  },
  60_000,
)

test('250 callers share the 100 streams of a connection', async () => {
  await using echo = await startEcho()
  using client = echoClient(echo.server.address)
  const calls = Array.from({ length: 250 }, async (_, i) => {
    const numbers = await gather(client.expand({ count: 10 }))
    const { text } = await client.unary({ text: `${i}` })
    return { sum: numbers.length, text }
  })
  const expected = Array.from({ length: 250 }, (_, i) => ({ sum: 10, text: `${i}` }))
  expect(await Promise.all(calls)).toEqual(expected)
  expect(echo.server.connections).toBe(1)
  await allClosed(echo.server)
})

test('large answers that nobody reads do not make the connection refuse other calls', async () => {
  const answered = Promise.withResolvers<void>()
  let left = 20
  await using echo = await startEcho({ observe: () => --left === 0 && answered.resolve() })
  const session = await rawSession(echo.server.address)
  const large = encodeFrame(toBinary(EchoRequestSchema, create(EchoRequestSchema, large4MiB)))
  const unread = Array.from({ length: 20 }, () => session.request({ ...rawHeaders }).end(large))
  await answered.promise
  const { trailers } = await rawCall(session, request)
  expect(trailers).toMatchObject({ 'grpc-status': '0' })
  for (const stream of unread) stream.close()
  await allClosed(echo.server)
  session.close()
})

test('metadata over the limit is refused, the next call is not', async () => {
  await using echo = await startEcho({ limits: { headerBytes: 4096 } })
  const session = await rawSession(echo.server.address)
  // the limit holds once the client has acknowledged the server's settings
  await rawCall(session, request)
  const large = rawCall(session, request, { filler: 'x'.repeat(8000) })
  await expect(large).rejects.toThrow('Stream closed with error code NGHTTP2_ENHANCE_YOUR_CALM')
  const { trailers } = await rawCall(session, request, { filler: 'x'.repeat(800) })
  expect(trailers).toMatchObject({ 'grpc-status': '0' })
  session.close()
})

const wrong = [
  ['not POST', { ':method': 'GET' }, 405],
  ['no content type', { 'content-type': undefined }, 415],
  ['JSON', { 'content-type': 'application/json' }, 415],
  ['gRPC-Web', { 'content-type': 'application/grpc-web+proto' }, 415],
  ['gRPC with JSON', { 'content-type': 'application/grpc+json' }, 415],
] as const

test.each(wrong)('%s is no gRPC call', async (_what, headers, status) => {
  await using echo = await startEcho()
  const session = await rawSession(echo.server.address)
  const answer = await rawCall(session, undefined, headers)
  expect(answer.headers).toMatchObject({ ':status': status })
  await allClosed(echo.server)
  session.close()
})

const refused = [
  ['an unknown method', request, { ':path': '/castellan.test.v1.Echo/Nothing' }, '12'],
  ['an unknown service', request, { ':path': '/nothing.Echo/Unary' }, '12'],
  ['a compressed message', Uint8Array.of(1, 0, 0, 0, 1, 0), { 'grpc-encoding': 'gzip' }, '12'],
  ['an unknown flag', Uint8Array.of(9, 0, 0, 0, 1, 0), {}, '3'],
  ['no message', new Uint8Array(), {}, '12'],
  ['two messages', Buffer.concat([request, request]), {}, '12'],
  ['half a prefix', Uint8Array.of(0, 0, 0), {}, '3'],
  ['half a message', request.subarray(0, 7), {}, '3'],
  ['a malformed message', encodeFrame(Uint8Array.of(0xff, 0xff)), {}, '3'],
  ['a timeout without unit', request, { 'grpc-timeout': '100' }, '3'],
  ['a timeout of nine digits', request, { 'grpc-timeout': '123456789m' }, '3'],
] as const

test.each(refused)('%s is answered in one header block', async (_what, body, headers, code) => {
  await using echo = await startEcho()
  const session = await rawSession(echo.server.address)
  const answer = await rawCall(session, body, headers)
  expect(answer.headers).toMatchObject({
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-status': code,
    'grpc-accept-encoding': 'identity',
  })
  expect(answer.trailers).toEqual({})
  const next = await rawCall(session, request)
  expect(next.trailers).toMatchObject({ 'grpc-status': '0' })
  await allClosed(echo.server)
  session.close()
})

test('a client that never ends its refused requests does not run out of streams', async () => {
  await using echo = await startEcho()
  const session = await rawSession(echo.server.address)
  for (let i = 0; i < 250; i++) {
    const { headers } = await rawCall(session, undefined, { ':path': '/nothing.Echo/Unary' })
    expect(headers).toMatchObject({ 'grpc-status': '12' })
  }
  await allClosed(echo.server)
  session.close()
})

test('a connection over the limit is not served', async () => {
  await using echo = await startEcho({ limits: { connections: 1 } })
  using first = echoClient(echo.server.address)
  await first.unary({})
  using second = echoClient(echo.server.address)
  await expect(second.unary({})).rejects.toMatchObject({ code: grpc.status.UNAVAILABLE })
  expect(await first.unary({ text: 'mine' })).toMatchObject({ text: 'mine' })
})

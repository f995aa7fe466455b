import { once } from 'node:events'
import type { ClientHttp2Session } from 'node:http2'
import { create, toBinary } from '@bufbuild/protobuf'
import { expect, test, vi } from 'vitest'
import {
  Echo,
  type EchoRequest,
  EchoRequestSchema,
} from '../../../proto/gen/castellan/test/v1/echo_pb.js'
import { encodeFrame } from '../../../runtime/grpc/frame.ts'
import { prepared, service } from '../../../runtime/grpc/service.ts'
import { startEcho } from '../../support/echo.ts'
import { rawCall, rawHeaders, rawSession } from '../../support/raw-grpc.ts'

const message = new Uint8Array(10_000)
const chat = { ...rawHeaders, ':path': '/castellan.test.v1.Echo/Chat' }
const ask = create(EchoRequestSchema, { payload: message })
const frame = encodeFrame(toBinary(EchoRequestSchema, ask))

/** What goes back and forth beside a stream. */
const unary = ({ payload }: EchoRequest) => ({ payload })

/** A number that has stopped growing: so many calls of the same connection came and went, and it is the same. */
async function settled(
  session: ClientHttp2Session,
  count: () => number,
  calls = 50,
): Promise<number> {
  let last = -1
  for (let same = 0; same < calls; ) {
    const { body } = await rawCall(session, frame)
    expect(body.length).toBeGreaterThan(message.length)
    const now = count()
    same = now === last && now > 0 ? same + 1 : 0
    last = now
  }
  return last
}

test('a reader that stops reading stops the generator, and gets all when it goes on', async () => {
  let sent = 0
  const total = 2000
  const endless = service(Echo, {
    unary,
    async *expand() {
      for (; sent < total; sent++) yield prepared(message)
    },
  })
  await using echo = await startEcho({ services: [endless] })
  const session = await rawSession(echo.server.address)
  const stream = session.request({ ...rawHeaders, ':path': '/castellan.test.v1.Echo/Expand' })
  stream.end(Uint8Array.of(0, 0, 0, 0, 0))
  await once(stream, 'response')
  // the windows and buffers of both ends hold a few hundred kB
  expect(await settled(session, () => sent)).toBeLessThan(100)
  let received = 0
  for await (const chunk of stream) received += chunk.length
  expect({ sent, received }).toEqual({ sent: total, received: total * (message.length + 5) })
  session.close()
})

test('a handler that stops reading stops the sender, and gets all when it goes on', async () => {
  const go = Promise.withResolvers<void>()
  let read = 0
  const slow = service(Echo, {
    unary,
    async *chat(requests) {
      for await (const _ of requests) {
        if (read === 0) await go.promise
        read++
      }
      yield { number: read }
    },
  })
  await using echo = await startEcho({ services: [slow] })
  const session = await rawSession(echo.server.address)
  const stream = session.request(chat)
  let written = 0
  const total = 500
  for (let i = 0; i < total; i++) stream.write(frame, () => written++)
  stream.end()
  expect(await settled(session, () => written)).toBeLessThan(100)
  expect(read).toBe(0)
  go.resolve()
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  expect({ read, reply: [...Buffer.concat(chunks)] }).toEqual({
    read: total,
    // number: 500
    reply: [0, 0, 0, 0, 3, 0x18, 0xf4, 0x03],
  })
  session.close()
})

test('a stream that is not read holds up no other call of its connection', async () => {
  const never = Promise.withResolvers<void>()
  const stuck = service(Echo, {
    unary: ({ text }) => ({ text }),
    // biome-ignore lint/correctness/useYield: it answers nothing, that is the point
    async *chat() {
      await never.promise
    },
  })
  await using echo = await startEcho({ services: [stuck], drainTimeout: 10 })
  const session = await rawSession(echo.server.address)
  const streams = Array.from({ length: 20 }, () => session.request(chat))
  for (const stream of streams) {
    stream.on('error', () => {})
    for (let i = 0; i < 50; i++) stream.write(frame)
  }
  for (let i = 0; i < 20; i++) {
    const call = session.request(rawHeaders).end(frame)
    await once(call, 'response')
    call.close()
  }
  expect(echo.server.openStreams).toBeGreaterThanOrEqual(20)
  session.destroy()
  never.resolve()
  await vi.waitUntil(() => echo.server.openStreams === 0, { timeout: 20_000 })
})

// What is cut short over HTTP/2 never looks whole: no END_STREAM goes before the reset.
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { constants, createServer as createHttp2, type ServerHttp2Stream } from 'node:http2'
import { createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { cutStream } from '../../proxy/http2-cut.ts'
import { frame, framesIn, types } from '../support/frames.ts'
import { openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import { inboundTo, payments, sourceOf } from '../support/shop.ts'
import { listening, startApp, startSidecar } from '../support/sidecar.ts'

const source = sourceOf(payments)

const sidecarBefore = (port: number, protocol = 'http') => {
  const inbound = [inboundTo(port, { protocol, mtls: 'off' })]
  return startSidecar({ inbound }, { source, state: stateOf('[{}]') })
}

async function startHttp2(onStream: (stream: ServerHttp2Stream) => void) {
  const server = createHttp2()
  server.on('stream', (stream) => {
    stream.on('error', () => {})
    onStream(stream)
  })
  return await listening(server)
}

describe('over HTTP/2', () => {
  it('an answer that breaks off at a workload of HTTP/1.1 breaks off', async () => {
    await using app = await startApp((_, response) => {
      response.write('so far', () => response.destroy())
    })
    await using sidecar = await sidecarBefore(app.port)
    using caller = openCaller(sidecar.port)
    const called = await caller.call({ 'content-type': 'text/plain' })
    expect(called).toMatchObject({ body: 'so far', isWhole: false })
    expect(called.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR)
  })

  for (const code of [constants.NGHTTP2_CANCEL, constants.NGHTTP2_INTERNAL_ERROR]) {
    it(`an answer that a workload resets with ${code} is reset with ${code}`, async () => {
      await using app = await startHttp2((stream) => {
        stream.respond({ ':status': 200 })
        stream.write('so far', () =>
          cutStream(stream, code === constants.NGHTTP2_CANCEL ? 'cancelled' : 'broken'),
        )
      })
      await using sidecar = await sidecarBefore(app.port, 'grpc')
      using caller = openCaller(sidecar.port)
      const { body, rstCode } = await caller.call()
      expect([body, rstCode]).toEqual(['so far', code])
    })
  }

  it('a request that its caller gives up is given up, and not ended', async () => {
    const asked = Promise.withResolvers<IncomingMessage>()
    await using app = await startApp(asked.resolve)
    await using sidecar = await sidecarBefore(app.port)
    using caller = openCaller(sidecar.port)
    const stream = caller.session.request({ ':method': 'POST', ':path': '/' })
    stream.on('error', () => {})
    stream.write('so far')
    const message = await asked.promise
    message.on('error', () => {})
    await once(message, 'data')
    const closed = new Promise((resolve) => message.once('close', resolve))
    cutStream(stream, 'cancelled')
    await closed
    expect(message.complete).toBe(false)
  })

  it('nothing but the reset is sent', async () => {
    for (const [why, code] of [
      ['cancelled', constants.NGHTTP2_CANCEL],
      ['broken', constants.NGHTTP2_INTERNAL_ERROR],
    ] as const) {
      const parts: Buffer[] = []
      const closed = Promise.withResolvers<void>()
      await using server = await listening(
        createServer((socket) => {
          socket.write(frame(types.settings, 0, 0, Buffer.alloc(0)))
          socket.on('data', (part) => parts.push(part))
          socket.once('close', () => closed.resolve())
        }),
      )
      using caller = openCaller(server.port)
      const stream = caller.session.request({ ':method': 'POST', ':path': '/' })
      stream.on('error', () => {})
      await new Promise<void>((resolve) => stream.write('so far', () => resolve()))
      const over = new Promise((resolve) => stream.once('close', resolve))
      cutStream(stream, why)
      await over
      caller.session.close()
      await closed.promise
      const frames = framesIn(Buffer.concat(parts).subarray(24)).filter((it) => it.stream === 1)
      const [last] = frames.slice(-1)
      expect(frames.map(({ type }) => type)).toEqual([types.headers, types.data, types.reset])
      expect(frames.slice(0, 2).every(({ flags }) => (flags & 1) === 0)).toBe(true)
      expect(last?.payload.readUInt32BE()).toBe(code)
    }
  })
})

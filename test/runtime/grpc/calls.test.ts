import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import * as grpc from '@grpc/grpc-js'
import { afterAll, describe, expect, test } from 'vitest'
import { Echo } from '../../../proto/gen/castellan/test/v1/echo_pb.js'
import type { CallContext } from '../../../runtime/grpc/server.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { startEcho } from '../../support/echo.ts'
import { echoClient, gather } from '../../support/grpc-js.ts'
import { makeTestTls } from '../../support/test-tls.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-grpc-'))
afterAll(() => rmSync(folder, { recursive: true }))
const { ca, cert, key } = await makeTestTls()

const ways = {
  tcp: { options: {}, credentials: grpc.credentials.createInsecure() },
  tls: {
    options: { tls: { cert, key } },
    credentials: grpc.credentials.createSsl(Buffer.from(ca)),
  },
  unix: {
    options: { listen: { path: join(folder, 'echo.sock'), mode: 0o600 } },
    credentials: grpc.credentials.createInsecure(),
  },
} as const

describe.each(Object.entries(ways))('over %s, grpc-js', (_name, { options, credentials }) => {
  test('gets the answer of a unary call', async () => {
    await using echo = await startEcho(options)
    using client = echoClient(echo.server.address, credentials)
    const payload = new Uint8Array(300_000).fill(7)
    const reply = await client.unary({ text: 'grüße', payload })
    expect(reply.text).toBe('grüße')
    // vitest compares byte by byte, for minutes
    expect(Buffer.compare(reply.payload, payload)).toBe(0)
  })

  test('reads a stream in order, however long', async () => {
    await using echo = await startEcho(options)
    using client = echoClient(echo.server.address, credentials)
    const numbers: number[] = []
    for await (const { number } of client.expand({ count: 5000, text: 'x'.repeat(50) })) {
      numbers.push(number)
    }
    expect(numbers).toEqual(Array.from({ length: 5000 }, (_, i) => i))
  })

  test('reads a stream without messages', async () => {
    await using echo = await startEcho(options)
    using client = echoClient(echo.server.address, credentials)
    expect(await gather(client.expand({ count: 0 }))).toEqual([])
  })

  test('sends a stream', async () => {
    await using echo = await startEcho(options)
    using client = echoClient(echo.server.address, credentials)
    const asks = Array.from({ length: 2000 }, (_, i) => ({ text: `${i}` }))
    const reply = await client.collect(asks)
    expect(reply).toMatchObject({ number: 2000, text: asks.map(({ text }) => text).join(',') })
    expect(await client.collect([])).toMatchObject({ number: 0 })
  })

  test('talks in both directions, each message answered before the next is sent', async () => {
    await using echo = await startEcho(options)
    using client = echoClient(echo.server.address, credentials)
    const chat = client.chat()
    const heard: string[] = []
    chat.write({ text: '0' })
    for await (const { text } of chat) {
      heard.push(text)
      if (heard.length < 20) chat.write({ text: `${heard.length}` })
      else chat.end()
    }
    expect(heard).toEqual(Array.from({ length: 20 }, (_, i) => `${i}`))
  })

  test('gets the status, the text and the details of an error', async () => {
    await using echo = await startEcho(options)
    using client = echoClient(echo.server.address, credentials)
    const expected = { code: 7, details: 'asked to fail, 100 % “ERR_DENIED”' }
    const error = await client.unary({ fail: 'ERR_DENIED' }).catch((caught: unknown) => caught)
    expect(error).toMatchObject(expected)
    const streaming = gather(client.expand({ count: 3, fail: 'ERR_DENIED' }))
    await expect(streaming).rejects.toMatchObject(expected)
    await expect(client.collect([{ fail: 'ERR_DENIED' }])).rejects.toMatchObject(expected)
    await expect(client.unary({ fail: 'PLAIN' })).rejects.toMatchObject({
      code: 13,
      details: 'internal error',
    })
  })
})

test('the unix socket has the mode that was asked for', async () => {
  const path = join(folder, 'mode.sock')
  await using echo = await startEcho({ listen: { path, mode: 0o640 } })
  expect(echo.server).toMatchObject({ address: path, port: 0 })
  expect(statSync(path).mode & 0o777).toBe(0o640)
})

test("Connect's client understands every kind of call and the details of an error", async () => {
  await using echo = await startEcho()
  const baseUrl = `http://${echo.server.address}`
  const client = createClient(Echo, createGrpcTransport({ baseUrl }))
  async function* asks() {
    for (const text of ['a', 'b', 'c']) yield { text }
  }
  expect(await client.unary({ text: 'hello' })).toMatchObject({ text: 'hello' })
  expect(await gather(client.expand({ count: 3 }))).toHaveLength(3)
  expect(await client.collect(asks())).toMatchObject({ text: 'a,b,c' })
  expect((await gather(client.chat(asks()))).map(({ text }) => text)).toEqual(['a', 'b', 'c'])
  await expect(client.unary({ fail: 'ERR_CSR' })).rejects.toMatchObject({
    code: 3,
    rawMessage: 'asked to fail, 100 % “ERR_CSR”',
    details: [{ type: 'google.rpc.BadRequest' }, { type: 'google.rpc.RetryInfo' }],
  })
})

test('authorize sees the method, the peer and the metadata, and its throw is the answer', async () => {
  const seen: CallContext<string>[] = []
  await using echo = await startEcho({
    authorize: async (context) => {
      seen.push(context)
      await Promise.resolve()
      if (!context.metadata.has('let-me-in')) throw new IdentityError('ERR_DENIED', 'not you')
    },
  })
  using client = echoClient(echo.server.address)
  await expect(client.unary({})).rejects.toMatchObject({ code: 7, details: 'not you' })
  await expect(client.collect([{}, {}])).rejects.toMatchObject({ code: 7, details: 'not you' })
  const chat = client.chat()
  chat.write({})
  await expect(gather(chat)).rejects.toMatchObject({ code: 7, details: 'not you' })
  const metadata = new grpc.Metadata()
  metadata.add('let-me-in', 'a')
  metadata.add('let-me-in', 'b')
  const welcome = gather(client.expand({ count: 1 }, {}))
  await expect(welcome).rejects.toMatchObject({ code: 7 })
  const names = seen.map(({ method }) => method.name)
  expect(names).toEqual(['Unary', 'Collect', 'Chat', 'Expand'])
  expect(seen[0]?.peer).toMatch(/^127\.0\.0\.1:\d+$/)
})

test('every call that ends is observed once, with its code, its peer and its error', async () => {
  const events: { method: string; code: number; error?: unknown }[] = []
  await using echo = await startEcho({
    observe: ({ method, code, error }) => events.push({ method, code, error }),
  })
  using client = echoClient(echo.server.address)
  await client.unary({})
  await client.unary({ fail: 'ERR_NOT_FOUND' }).catch(() => {})
  await gather(client.expand({ count: 2 }))
  const method = 'castellan.test.v1.Echo/Unary'
  expect(events).toEqual([
    { method, code: 0, error: undefined },
    { method, code: 5, error: expect.objectContaining({ code: 'ERR_NOT_FOUND' }) },
    { method: 'castellan.test.v1.Echo/Expand', code: 0, error: undefined },
  ])
})

test('an observer or a details function that throws costs no answer', async () => {
  const broken = () => {
    throw new Error('broken')
  }
  await using echo = await startEcho({ observe: broken, details: broken })
  using client = echoClient(echo.server.address)
  expect(await client.unary({ text: 'hi' })).toMatchObject({ text: 'hi' })
  await expect(client.unary({ fail: 'ERR_DENIED' })).rejects.toMatchObject({ code: 7 })
  expect(await gather(client.expand({ count: 2 }))).toHaveLength(2)
})

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { afterAll, expect, test, vi } from 'vitest'
import { startEcho } from '../../support/echo.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { echoClient, gather } from '../../support/grpc-js.ts'
import { rawCall, rawHeaders, rawSession } from '../../support/raw-grpc.ts'
import { makeTestTls } from '../../support/test-tls.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-grpc-'))
afterAll(() => rmSync(folder, { recursive: true }))

const { CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE } = grpc.status
const allClosed = (server: { openStreams: number }) =>
  vi.waitUntil(() => server.openStreams === 0, { timeout: 5000, interval: 5 })

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
  await using echo = await startEcho({ disconnected: (peer) => gone.push(peer) })
  const session = await rawSession(echo.server.address)
  const returned = once(echo.events, 'returned')
  const stream = session.request({ ...rawHeaders, ':path': '/castellan.test.v1.Echo/Chat' })
  stream.on('error', () => {})
  stream.write(Uint8Array.of(0, 0, 0, 0, 0))
  await once(stream, 'data')
  session.destroy()
  await returned
  await vi.waitUntil(() => echo.server.connections === 0)
  expect(gone).toHaveLength(1)
  expect(echo.server.openStreams).toBe(0)
})

test('drain ends streams with UNAVAILABLE and lets unary calls finish', async () => {
  const admitted = Promise.withResolvers<void>()
  const entered = Promise.withResolvers<void>()
  const echo = await startEcho({
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

test('disconnect ends the connections of one peer and no other', async () => {
  const ended = Promise.withResolvers<string>()
  await using echo = await startEcho({
    peer: (socket) => `${socket.remotePort}`,
    disconnected: ended.resolve,
  })
  const [first, second] = [
    await rawSession(echo.server.address),
    await rawSession(echo.server.address),
  ]
  const chat = first.request({ ...rawHeaders, ':path': '/castellan.test.v1.Echo/Chat' })
  chat.write(Uint8Array.of(0, 0, 0, 0, 0))
  await once(chat, 'data')
  await rawCall(second, Uint8Array.of(0, 0, 0, 0, 0))
  const peer = `${first.socket.localPort}`
  const told = Promise.all([once(chat, 'trailers'), once(first, 'goaway')])
  echo.server.disconnect((candidate) => candidate === peer)
  const [[trailersOfChat], [goaway]] = await told
  expect(trailersOfChat).toMatchObject({ 'grpc-status': '14' })
  expect(goaway).toBe(0)
  expect(await ended.promise).toBe(peer)
  expect(echo.server.connections).toBe(1)
  const { trailers } = await rawCall(second, Uint8Array.of(0, 0, 0, 0, 0))
  expect(trailers).toMatchObject({ 'grpc-status': '0' })
  second.close()
})

test('a disconnected peer that does not go is cut off', async () => {
  const ended = Promise.withResolvers<string>()
  await using echo = await startEcho({ peer: () => 'stubborn', disconnected: ended.resolve })
  const socket = net.connect({ port: echo.server.port, host: '127.0.0.1', allowHalfOpen: true })
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  socket.write(Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0))
  await once(socket, 'data')
  echo.server.disconnect(() => true)
  expect(await ended.promise).toBe('stubborn')
  expect(echo.server.connections).toBe(0)
  socket.destroy()
})

test('a connection whose peer throws is refused, the next is served', async () => {
  let refuse = true
  await using echo = await startEcho({
    peer: () => {
      if (refuse) throw new Error('nobody knows you')
      return 'known'
    },
  })
  using stranger = echoClient(echo.server.address)
  await expect(stranger.unary({})).rejects.toMatchObject({ code: UNAVAILABLE })
  refuse = false
  using friend = echoClient(echo.server.address)
  expect(await friend.unary({ text: 'hi' })).toMatchObject({ text: 'hi' })
})

test('the file of a server that was killed is taken over, that of a live one is not', async () => {
  const path = join(folder, 'taken.sock')
  const listen = { path, mode: 0o600 }
  const stale = net.createServer().listen(path)
  await once(stale, 'listening')
  await expect(startEcho({ listen })).rejects.toMatchObject({ code: 'EADDRINUSE' })
  const closed = once(stale, 'close')
  stale.close()
  await closed
  const die = "() => process.kill(process.pid, 'SIGKILL')"
  const leave = `require('node:net').createServer().listen(${JSON.stringify(path)}, ${die})`
  expect(() => execFileSync(process.execPath, ['-e', leave])).toThrow()
  await using echo = await startEcho({ listen })
  using client = echoClient(path)
  expect(await client.unary({ text: 'mine' })).toMatchObject({ text: 'mine' })
  expect(echo.server.address).toBe(path)
})

test('setTls changes the certificate of the next connection, and needs TLS', async () => {
  const [old, next] = await Promise.all([makeTestTls(), makeTestTls()])
  const trusting = ({ ca }: { ca: string }) => grpc.credentials.createSsl(Buffer.from(ca))
  await using echo = await startEcho({ tls: { cert: old.cert, key: old.key } })
  const address = `localhost:${echo.server.port}`
  using before = echoClient(address, trusting(old))
  await before.unary({})
  echo.server.setTls({ cert: next.cert, key: next.key })
  using after = echoClient(address, trusting(next))
  expect(await after.unary({ text: 'new' })).toMatchObject({ text: 'new' })
  expect(await before.unary({ text: 'old' })).toMatchObject({ text: 'old' })
  await using plain = await startEcho()
  expect(() => plain.server.setTls({})).toThrow(new TypeError('this server has no TLS'))
})

test('peer sees the certificate of a TLS client', async () => {
  const [{ cert, key, ca }, caller] = await Promise.all([makeTestTls(), makeTestTls('caller')])
  const tls = { cert, key, requestCert: true, ca: caller.ca }
  const subjects: (string | undefined)[] = []
  await using echo = await startEcho({
    tls,
    peer: (socket) => {
      if ('getPeerX509Certificate' in socket) {
        subjects.push(socket.getPeerX509Certificate()?.subject)
      }
      return ''
    },
  })
  const pems = [ca, caller.key, caller.cert].map((pem) => Buffer.from(pem))
  const credentials = grpc.credentials.createSsl(pems[0], pems[1], pems[2])
  using client = echoClient(`localhost:${echo.server.port}`, credentials)
  await client.unary({})
  expect(subjects).toEqual(['CN=caller'])
})

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http2 from 'node:http2'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { afterAll, expect, test } from 'vitest'
import { IdentityError } from '../../../spiffe/errors.ts'
import { startEcho } from '../../support/echo.ts'
import { echoClient } from '../../support/grpc-js.ts'
import { rawCall, rawHeaders, rawSession } from '../../support/raw-grpc.ts'
import { makeTestTls } from '../../support/test-tls.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-grpc-'))
afterAll(() => rmSync(folder, { recursive: true }))

const { UNAVAILABLE } = grpc.status

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

test('a connection that is one too many is told so', async () => {
  const full = new IdentityError('ERR_EXHAUSTED', 'user 1000 has 2 connections already')
  await using echo = await startEcho({
    peer: () => {
      throw full
    },
  })
  const session = http2.connect(`http://${echo.server.address}`)
  session.on('error', () => {})
  const [code, last, reason] = await once(session, 'goaway')
  expect([code, last, String(reason)]).toEqual([
    http2.constants.NGHTTP2_ENHANCE_YOUR_CALM,
    0,
    full.message,
  ])
  expect(echo.server.connections).toBe(0)
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

import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import { admitInTurn, type HandshakeLimits } from '../../../runtime/grpc/handshakes.ts'
import { makeTestTls } from '../../support/test-tls.ts'

let front: net.Server
const clients: net.Socket[] = []
let open = 0
let mostOpen = 0

/** A server that says `hello` to each, and counts how many handshakes are in progress. */
async function start(limits: HandshakeLimits): Promise<number> {
  const server = tls.createServer(await makeTestTls())
  server.on('connection', () => {
    mostOpen = Math.max(mostOpen, ++open)
  })
  server.on('secureConnection', (socket) => {
    open--
    socket.on('error', () => {})
    socket.end('hello')
  })
  server.on('tlsClientError', (_, socket) => {
    open--
    socket.destroy()
  })
  front = admitInTurn(server, {}, limits).listen(0, '127.0.0.1')
  await once(front, 'listening')
  const bound = front.address()
  return typeof bound === 'object' && bound !== null ? bound.port : 0
}

async function hear(port: number): Promise<string> {
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
  clients.push(socket)
  let text = ''
  socket.on('data', (data: Buffer) => {
    text += data.toString()
  })
  await once(socket, 'end')
  return text
}

/** Connects and says nothing. */
async function idle(port: number): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1')
  socket.on('error', () => {})
  clients.push(socket)
  await once(socket, 'connect')
  return socket
}

afterEach(async () => {
  for (const socket of clients.splice(0)) socket.destroy()
  const closed = once(front, 'close')
  front.close()
  await closed
  open = 0
  mostOpen = 0
})

describe('TLS handshakes', () => {
  it('are a few at a time, and all of them come to an end', async () => {
    const port = await start({ most: 4, waiting: 1000, patience: 60_000 })
    const all = await Promise.all(Array.from({ length: 100 }, () => hear(port)))
    expect(new Set(all)).toEqual(new Set(['hello']))
    expect(mostOpen).toBeLessThanOrEqual(4)
  }, 120_000)

  it('that fail or are given up make room for the next', async () => {
    const port = await start({ most: 2, waiting: 1000, patience: 60_000 })
    const silent = await Promise.all([idle(port), idle(port), idle(port)])
    const waiting = hear(port)
    silent[0]?.end('this is no TLS')
    silent[1]?.destroy()
    silent[2]?.destroy()
    expect(await waiting).toBe('hello')
  }, 60_000)

  it('beyond what may wait are sent away at once', async () => {
    const port = await start({ most: 1, waiting: 1, patience: 60_000 })
    await idle(port)
    await idle(port)
    const third = net.connect(port, '127.0.0.1')
    clients.push(third)
    third.resume()
    await once(third, 'close')
    expect(third.bytesRead).toBe(0)
  }, 60_000)

  it('that have waited too long are sent away before any work was spent on them', async () => {
    const port = await start({ most: 1, waiting: 10, patience: 0 })
    const first = await idle(port)
    const late = await idle(port)
    late.resume()
    const closed = once(late, 'close')
    first.destroy()
    await closed
    expect(late.bytesRead).toBe(0)
  }, 60_000)
})

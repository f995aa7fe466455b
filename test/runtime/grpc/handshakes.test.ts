import { once } from 'node:events'
import net from 'node:net'
import tls from 'node:tls'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { admitInTurn, type HandshakeLimits } from '../../../runtime/grpc/handshakes.ts'
import { makeTestTls } from '../../support/test-tls.ts'

const fronts: net.Server[] = []
const clients: net.Socket[] = []
let open = 0
let begun = 0
let mostOpen = 0

/** A server that says `hello` to each, and counts how many handshakes are in progress. */
async function start(limits: HandshakeLimits): Promise<number> {
  const server = tls.createServer(await makeTestTls())
  server.on('connection', () => {
    begun++
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
  const front = admitInTurn(server, {}, limits).listen(0, '127.0.0.1')
  fronts.push(front)
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

/** Begins a handshake, and says no more; nothing at all when it is `silent`. */
async function idle(port: number, isSilent = false): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1')
  socket.on('error', () => {})
  clients.push(socket)
  await once(socket, 'connect')
  // the header of a ClientHello
  if (!isSilent) socket.write(Buffer.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01))
  return socket
}

afterEach(async () => {
  for (const socket of clients.splice(0)) socket.destroy()
  for (const front of fronts.splice(0)) {
    const closed = once(front, 'close')
    front.close()
    await closed
  }
  open = 0
  begun = 0
  mostOpen = 0
})

describe('TLS handshakes', () => {
  it('are a few at a time, and all of them come to an end', async () => {
    const port = await start({ most: 4, waiting: 1000, patience: 60_000, turn: 60_000 })
    const all = await Promise.all(Array.from({ length: 100 }, () => hear(port)))
    expect(new Set(all)).toEqual(new Set(['hello']))
    expect(mostOpen).toBeLessThanOrEqual(4)
  }, 120_000)

  it('that fail or are given up make room for the next', async () => {
    const port = await start({ most: 2, waiting: 1000, patience: 60_000, turn: 60_000 })
    const three = await Promise.all([idle(port), idle(port), idle(port)])
    await vi.waitFor(() => expect(begun).toBe(2), 30_000)
    const waiting = hear(port)
    three[0]?.end('this is no TLS')
    three[1]?.destroy()
    three[2]?.destroy()
    expect(await waiting).toBe('hello')
  }, 60_000)

  it('that do not come to an end hold nobody else up for longer than their turn', async () => {
    const port = await start({ most: 2, waiting: 1000, patience: 60_000, turn: 50 })
    await Promise.all(Array.from({ length: 10 }, () => idle(port)))
    expect(await hear(port)).toBe('hello')
  }, 60_000)

  it('of those who say nothing take nobody’s turn, and are sent away', async () => {
    const port = await start({ most: 1, waiting: 10, patience: 20_000, turn: 60_000 })
    await Promise.all([idle(port, true), idle(port, true)])
    expect(await hear(port)).toBe('hello')
    const short = await start({ most: 1, waiting: 10, patience: 10, turn: 60_000 })
    const silent = await idle(short, true)
    silent.resume()
    await once(silent, 'close')
    expect(silent.bytesRead).toBe(0)
  }, 60_000)

  it('beyond what may wait are sent away at once', async () => {
    const port = await start({ most: 1, waiting: 1, patience: 60_000, turn: 60_000 })
    const all = await Promise.all([idle(port), idle(port), idle(port)])
    // which of them is the third is the kernel's choice
    const closed = Promise.race(all.map((socket) => once(socket.resume(), 'close')))
    await closed
    expect(all.filter((socket) => socket.destroyed)).toHaveLength(1)
  }, 60_000)

  it('that have waited too long are sent away before any work was spent on them', async () => {
    const port = await start({ most: 1, waiting: 10, patience: 100, turn: 1000 })
    const all = await Promise.all([idle(port), idle(port)])
    await Promise.race(all.map((socket) => once(socket.resume(), 'close')))
    expect(begun).toBe(1)
  }, 60_000)
})

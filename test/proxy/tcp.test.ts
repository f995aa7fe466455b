import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Address } from '../../runtime/config.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { stateOf } from '../support/mesh.ts'
import { dialPayments, inboundTo, payments, sourceOf, web } from '../support/shop.ts'
import { type App, listening, type Sidecar, startSidecar, untilClosed } from '../support/sidecar.ts'

const webSource = sourceOf(web)
const paymentsSource = sourceOf(payments)

const patient = { timeout: 20_000 }

let app: App
let onConnection: (socket: Socket) => void
let inbound: Sidecar
/** the same, but it waits for half-open tunnels for a moment only */
let hasty: Sidecar
let outbound: Sidecar
const endpoints = new Map<string, Address[]>()

beforeAll(async () => {
  app = await listening(createServer({ allowHalfOpen: true }, (socket) => onConnection(socket)))
  const spec = {
    inbound: [inboundTo(app.port, { protocol: 'tcp' })],
  }
  const state = stateOf(`[{ to: [{ operation: { ports: ["${app.port}"] } }] }]`)
  inbound = await startSidecar(spec, { source: paymentsSource, state })
  hasty = await startSidecar(spec, { source: paymentsSource, state, limits: { halfOpen: 300 } })
  endpoints.set('payments', [{ host: '127.0.0.1', port: inbound.port }])
  const listener = { listen: '127.0.0.1:0', protocol: 'tcp', expect: [payments] }
  outbound = await startSidecar(
    {
      outbound: [
        { ...listener, destination: `127.0.0.1:${inbound.port}` },
        { ...listener, destination: `127.0.0.1:${hasty.port}`, expect: [web] },
        { ...listener, service: 'payments' },
        { ...listener, service: 'nowhere' },
        { ...listener, destination: '127.0.0.1:1' },
        { ...listener, destination: `127.0.0.1:${hasty.port}` },
      ],
    },
    { source: webSource, state: stateOf('[]', endpoints) },
  )
})

afterAll(async () => {
  for (const it of [outbound, inbound, hasty, app]) await it[Symbol.asyncDispose]()
})

const portOf = (index: number) => outbound.listeners[index]?.port ?? 0

async function call(index: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: portOf(index), allowHalfOpen: true })
  await once(socket, 'connect')
  return socket
}

describe('TCP through two sidecars', () => {
  it('keeps half-close: the answer comes after the end of the question', async () => {
    onConnection = async (socket) => {
      let length = 0
      for await (const part of socket) length += part.length
      socket.end(`read ${length}`)
    }
    for (const index of [0, 2]) {
      const socket = await call(index)
      const answer = untilClosed(socket)
      socket.end('question')
      expect(await answer).toBe('read 8')
    }
  })

  it('half-closes the other way as well', async () => {
    const said = Promise.withResolvers<string>()
    onConnection = (socket) => {
      socket.end('greeting')
      untilClosed(socket).then(said.resolve)
    }
    const socket = await call(0)
    let heard = ''
    socket.on('data', (part) => {
      heard += part
    })
    await once(socket, 'end')
    socket.end('farewell')
    expect(heard).toBe('greeting')
    expect(await said.promise).toBe('farewell')
  })

  it('loses and changes no byte of 20 MB each way', async () => {
    onConnection = (socket) => socket.pipe(socket)
    const sent = randomBytes(20 * 1024 * 1024)
    const socket = await call(0)
    const hash = createHash('sha256')
    socket.on('data', (part) => hash.update(part))
    socket.end(sent)
    await once(socket, 'close')
    expect(hash.digest('hex')).toBe(createHash('sha256').update(sent).digest('hex'))
  })

  it('ends one side when the other breaks, both ways', async () => {
    onConnection = (socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.resetAndDestroy())
    }
    const first = connect({ host: '127.0.0.1', port: portOf(0) })
    first.write('break')
    expect(await untilClosed(first)).toBe('')

    const ended = Promise.withResolvers<void>()
    onConnection = (socket) => {
      socket.on('error', () => {})
      socket.once('end', () => ended.resolve())
      socket.resume()
      socket.write('here')
    }
    const second = await call(5)
    second.on('error', () => {})
    await once(second, 'data')
    second.resetAndDestroy()
    await ended.promise
    // the workload does not end its half: the limit for half-open tunnels does
    await expect.poll(() => hasty.connections.size, patient).toBe(0)
  })

  it('resets the local caller when the peer is not the expected, and the peer hears nothing', async () => {
    let bytes = 0
    onConnection = (socket) => {
      socket.on('error', () => {})
      socket.on('data', (part) => {
        bytes += part.length
      })
    }
    const before = outbound.tally.failures
    const socket = await call(1)
    socket.write('secret')
    const error = Promise.withResolvers<Error>()
    socket.on('error', error.resolve)
    expect(await error.promise).toMatchObject({ code: 'ECONNRESET' })
    expect(outbound.tally.failures).toBe(before + 1)
    expect(outbound.lines.join('')).toContain(`the peer is ${payments}, expected one of ${web}`)
    await expect.poll(() => hasty.connections.size, patient).toBe(0)
    expect(bytes).toBe(0)
  })

  for (const [index, reason] of [
    [3, 'no endpoint of service nowhere'],
    [4, 'cannot reach 127.0.0.1:1'],
  ] as const) {
    it(`resets the local caller: ${reason}`, async () => {
      const socket = connect({ host: '127.0.0.1', port: portOf(index) })
      expect(await untilClosed(socket)).toBe('')
      expect(outbound.lines.join('')).toContain(reason)
    })
  }

  it('follows the endpoints that the agent tells', async () => {
    onConnection = (socket) => socket.end('found')
    endpoints.set('nowhere', [{ host: '127.0.0.1', port: inbound.port }])
    const socket = await call(3)
    socket.end()
    expect(await untilClosed(socket)).toBe('found')
  })
})

describe('inbound TCP', () => {
  it('sees policies by the port of the workload, and HTTP rules allow nothing', async () => {
    inbound.mesh.put(stateOf('[{ to: [{ operation: { ports: ["1"] } }] }]'))
    expect(await untilClosed(await dialPayments(inbound.port))).toBe('')
    inbound.mesh.put(stateOf('[{ to: [{ operation: { methods: ["GET"] } }] }]'))
    expect(await untilClosed(await dialPayments(inbound.port))).toBe('')
    inbound.mesh.put(stateOf('[{}]'))
    onConnection = (socket) => socket.end('welcome')
    const socket = await dialPayments(inbound.port)
    expect(await untilClosed(socket)).toBe('welcome')
  })

  it('ends a connection of age', async () => {
    onConnection = (socket) => socket.write('welcome')
    const clock = createFakeClock(Date.now())
    await using aging = await startSidecar(
      { inbound: [inboundTo(app.port, { protocol: 'tcp', maxConnectionAge: '1s' })] },
      { source: paymentsSource, state: stateOf('[{}]'), clock },
    )
    const socket = await dialPayments(aging.port)
    const answer = untilClosed(socket)
    await once(socket, 'data')
    await clock.advance(2000)
    expect(await answer).toBe('welcome')
  })

  it('accepts as many connections as its limit says', async () => {
    onConnection = (socket) => socket.pipe(socket)
    await using small = await startSidecar(
      { inbound: [inboundTo(app.port, { protocol: 'tcp' })] },
      { source: paymentsSource, state: stateOf('[{}]'), limits: { connections: 1 } },
    )
    const first = await dialPayments(small.port)
    await expect(dialPayments(small.port)).rejects.toThrow()
    const closed = untilClosed(first)
    first.end()
    await closed
  })

  it('lets what is in flight finish at shutdown, and ends it when that takes too long', async () => {
    const spec = { inbound: [inboundTo(app.port, { protocol: 'tcp' })] }
    for (const [drain, answer] of [
      [60_000, 'finished'],
      [50, ''],
    ] as const) {
      const asked = Promise.withResolvers<Socket>()
      onConnection = (socket) => {
        socket.on('error', () => {})
        socket.once('data', () => asked.resolve(socket))
      }
      const stopping = await startSidecar(spec, {
        source: paymentsSource,
        state: stateOf('[{}]'),
        limits: { drain },
      })
      const socket = await dialPayments(stopping.port)
      const closed = untilClosed(socket)
      socket.end('question')
      const workload = await asked.promise
      const stopped = stopping[Symbol.asyncDispose]()
      if (answer !== '') workload.end(answer)
      await stopped
      expect(await closed).toBe(answer)
    }
  })
})

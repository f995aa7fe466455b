// The endpoints of an outbound listener over real sockets: spread, limited, left out, and gone.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../../runtime/clock.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { ask, openCaller } from '../support/local-call.ts'
import { stateOf } from '../support/mesh.ts'
import { type Peer, startPeer } from '../support/peer.ts'
import { authority, payments, sourceOf, web } from '../support/shop.ts'
import { type Sidecar, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(web)
const svid = authority.issue(payments)
const patient = { timeout: 20_000 }

interface Named {
  readonly peer: Peer
  readonly held: ServerResponse[]
  /** `status` is what it answers */
  readonly its: { status: number; asked: number }
}

async function startNamed(name: string): Promise<Named> {
  const held: ServerResponse[] = []
  const its = { status: 200, asked: 0 }
  const peer = await startPeer({
    svid,
    onRequest(message, response) {
      its.asked++
      if (message.url === '/held') held.push(response)
      else response.writeHead(its.status).end(name)
    },
    onStream(stream) {
      stream.respond({ 'x-name': name })
      stream.end()
    },
  })
  return { peer, held, its }
}

let a: Named
let b: Named
let c: Named
beforeEach(async () => {
  ;[a, b, c] = await Promise.all([startNamed('a'), startNamed('b'), startNamed('c')])
})
afterEach(async () => {
  for (const { peer } of [a, b, c]) await peer[Symbol.asyncDispose]()
})

const start = (more: object, its: { state?: ReturnType<typeof stateOf>; clock?: Clock } = {}) => {
  const { state = stateOf('[]'), clock } = its
  const listener = { listen: '127.0.0.1:0', protocol: 'http', expect: [payments] }
  return startSidecar(
    { outbound: [{ ...listener, retries: { attempts: 0 }, ...more }] },
    { source, state, ...(clock && { clock }) },
  )
}

const all = () => [a.peer.address, b.peer.address, c.peer.address]
const roundRobin = { loadBalancing: 'round-robin' }

async function names(sidecar: Sidecar, count: number): Promise<string[]> {
  const answers: string[] = []
  for (let i = 0; i < count; i++) answers.push((await ask(sidecar.port)).body)
  return answers
}

const state = (...addresses: readonly Named[]) =>
  stateOf(
    '[]',
    new Map([['payments', addresses.map(({ peer: { port } }) => ({ host: '127.0.0.1', port }))]]),
  )

describe('endpoints', () => {
  it('take turns, over HTTP/1.1 and HTTP/2', async () => {
    await using sidecar = await start({ destination: all(), ...roundRobin })
    expect(await names(sidecar, 6)).toEqual(['a', 'b', 'c', 'a', 'b', 'c'])
    using local = openCaller(sidecar.port)
    const called: unknown[] = []
    for (let i = 0; i < 4; i++) called.push((await local.call()).headers['x-name'])
    expect(called).toEqual(['a', 'b', 'c', 'a'])
  })

  it('get the next request where less is under way', async () => {
    await using sidecar = await start({ destination: [a.peer.address, b.peer.address] })
    const first = ask(sidecar.port, { path: '/held' })
    await expect.poll(() => a.held.length + b.held.length, patient).toBe(1)
    const [busy, free] = a.held.length === 1 ? [a, 'b'] : [b, 'a']
    expect(new Set(await names(sidecar, 10))).toEqual(new Set([free]))
    busy.held[0]?.end('at last')
    await first
    expect(new Set(await names(sidecar, 40)).size).toBe(2)
  })

  it('are those of the service, and connections to one that went are given up', async () => {
    const service = { destination: undefined, service: 'payments', ...roundRobin }
    await using sidecar = await start(service, { state: state(a, b) })
    await names(sidecar, 2)
    const held = [ask(sidecar.port, { path: '/held' }), ask(sidecar.port, { path: '/held' })]
    await expect.poll(() => a.held.length + b.held.length, patient).toBe(2)
    await names(sidecar, 2)
    using local = openCaller(sidecar.port)
    for (let i = 0; i < 2; i++) await local.call()
    expect([a.peer.open, b.peer.open]).toEqual([3, 3])
    sidecar.mesh.put(state(b, c))
    // the idle ones end, what is under way goes on, and then ends too
    await expect.poll(() => [a.peer.open, b.peer.open], patient).toEqual([1, 3])
    expect(new Set(await names(sidecar, 4))).toEqual(new Set(['b', 'c']))
    a.held[0]?.end('finished')
    b.held[0]?.end('finished')
    expect((await Promise.all(held)).map(({ body }) => body)).toEqual(['finished', 'finished'])
    await expect.poll(() => [a.peer.open, b.peer.open], patient).toEqual([0, 3])
  })
})

describe('limits of an outbound listener', () => {
  it('of requests: one too many is told so at once', async () => {
    await using sidecar = await start({ destination: a.peer.address, limits: { requests: 2 } })
    const held = [ask(sidecar.port, { path: '/held' }), ask(sidecar.port, { path: '/held' })]
    await expect.poll(() => a.held.length, patient).toBe(2)
    expect(await ask(sidecar.port)).toMatchObject({ status: 503 })
    using local = openCaller(sidecar.port)
    expect((await local.call()).headers).toMatchObject({ 'grpc-status': '14' })
    for (const it of a.held) it.end()
    await Promise.all(held)
    await expect.poll(async () => (await ask(sidecar.port)).status, patient).toBe(200)
  })

  it('of connections: a new one takes the place of an idle one, and waits for nothing else', async () => {
    const limits = { connections: 2 }
    await using sidecar = await start({ destination: all(), ...roundRobin, limits })
    expect(await names(sidecar, 9)).toEqual(['a', 'b', 'c', 'a', 'b', 'c', 'a', 'b', 'c'])
    const held = [ask(sidecar.port, { path: '/held' }), ask(sidecar.port, { path: '/held' })]
    await expect.poll(() => a.held.length + b.held.length, patient).toBe(2)
    expect(sidecar.connections.size).toBeLessThanOrEqual(2)
    expect(await ask(sidecar.port)).toMatchObject({ status: 503 })
    for (const it of [...a.held, ...b.held]) it.end()
    await Promise.all(held)
    expect((await ask(sidecar.port)).status).toBe(200)
  })

  it('of connections of bytes', async () => {
    await using echo = await startPeer({ svid, onSocket: (socket) => void socket.pipe(socket) })
    const its = { destination: echo.address, protocol: 'tcp', limits: { connections: 1 } }
    await using sidecar = await start(its)
    const open = (): Socket => connect(sidecar.port, '127.0.0.1')
    const first = open()
    first.write('hello')
    await once(first, 'data')
    expect(await untilClosed(open())).toBe('')
    first.destroy()
    await expect.poll(() => sidecar.connections.size, patient).toBe(0)
    const second = open()
    second.write('hello')
    expect(String((await once(second, 'data'))[0])).toBe('hello')
    second.destroy()
  })
})

describe('outliers', () => {
  const outliers = { consecutiveFailures: 2, interval: '1s', ejection: '60s' }

  it('that answer 5xx are left out, and come back after a while', async () => {
    const clock = createFakeClock(Date.now())
    b.its.status = 500
    const its = { destination: all(), ...roundRobin, outliers }
    await using sidecar = await start(its, { clock })
    await names(sidecar, 6)
    expect(sidecar.lines.join('')).toContain('endpoint left out for a while')
    const before = b.its.asked
    await names(sidecar, 6)
    expect([before, b.its.asked]).toEqual([2, 2])
    b.its.status = 200
    await clock.advance(62_000)
    await names(sidecar, 3)
    expect(b.its.asked).toBe(3)
  })

  it('that cannot be reached are left out, for bytes too', async () => {
    const { address } = b.peer
    await b.peer[Symbol.asyncDispose]()
    const its = { destination: [a.peer.address, address], ...roundRobin, outliers }
    await using sidecar = await start(its)
    const statuses: (number | undefined)[] = []
    for (let i = 0; i < 10; i++) statuses.push((await ask(sidecar.port)).status)
    expect(statuses.filter((status) => status === 502).length).toBe(2)
    await using hello = await startPeer({ svid, onSocket: (socket) => void socket.end('hello') })
    await using tcp = await start({
      ...{ ...its, protocol: 'tcp', destination: [hello.address, address] },
    })
    const answers: string[] = []
    for (let i = 0; i < 10; i++) {
      const socket = connect(tcp.port, '127.0.0.1')
      answers.push(await untilClosed(socket))
    }
    expect(answers.filter((text) => text === '').length).toBe(2)
  })

  it('that let time pass are left out', async () => {
    const clock = createFakeClock(Date.now())
    const its = { destination: [a.peer.address, b.peer.address], timeout: '3s', outliers }
    await using sidecar = await start({ ...its, ...roundRobin }, { clock })
    const held = Array.from({ length: 4 }, () => ask(sidecar.port, { path: '/held' }))
    await expect.poll(() => a.held.length + b.held.length, patient).toBe(4)
    for (const it of a.held) it.end('a')
    await expect.poll(() => clock.advance(1000).then(() => sidecar.tally.failures), patient).toBe(2)
    expect((await Promise.all(held)).map(({ status }) => status).sort()).toEqual([
      ...[200, 200],
      ...[504, 504],
    ])
    expect(new Set(await names(sidecar, 4))).toEqual(new Set(['a']))
  })

  it('are never all of them', async () => {
    for (const { its } of [a, b, c]) its.status = 500
    await using sidecar = await start({ destination: all(), ...roundRobin, outliers })
    await names(sidecar, 30)
    // half of three is one
    const most = [a, b, c].map(({ its }) => its.asked).sort((x, y) => x - y)
    expect(most[0]).toBe(2)
    expect((most[1] ?? 0) + (most[2] ?? 0)).toBe(28)
  })
})

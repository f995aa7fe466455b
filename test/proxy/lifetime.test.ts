import { once } from 'node:events'
import { request, type ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTally } from '../../decisions/tally.ts'
import { destinationOf } from '../../policies/attributes/request.ts'
import { noPolicies } from '../../policies/compile.ts'
import { evaluateTcp } from '../../policies/evaluate.ts'
import { systemClock } from '../../runtime/clock.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { stateOf } from '../support/mesh.ts'
import { dialPayments, inboundTo, openSession, payments, sourceOf, web } from '../support/shop.ts'
import { type App, type Sidecar, startApp, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(payments)

let app: App
let asked = Promise.withResolvers<ServerResponse>()

beforeAll(async () => {
  app = await startApp((message, response) => {
    if (message.url === '/held') asked.resolve(response)
    else response.end('at once')
  })
})

afterAll(() => app[Symbol.asyncDispose]())

async function start(
  more: object = {},
  limits: object = {},
  clock = systemClock,
): Promise<Sidecar> {
  const spec = { inbound: [inboundTo(app.port, more)] }
  return await startSidecar(spec, { source, state: stateOf('[{}]'), limits, clock })
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: shop\r\n\r\n`

describe('a connection of age', () => {
  it('ends behind the next answer of HTTP/1.1', async () => {
    const clock = createFakeClock(Date.now())
    await using sidecar = await start({ maxConnectionAge: '1s' }, {}, clock)
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    asked = Promise.withResolvers()
    socket.write(get('/held'))
    const response = await asked.promise
    await clock.advance(2_000)
    expect(sidecar.connections.size).toBe(1)
    response.end('finished')
    expect(await answer).toMatch(/finished/)
  })

  it('says goodbye in HTTP/2 and lets its streams finish', async () => {
    const clock = createFakeClock(Date.now())
    await using sidecar = await start({ maxConnectionAge: '1s' }, {}, clock)
    const session = await openSession(sidecar.port)
    const goaway = once(session, 'goaway')
    asked = Promise.withResolvers()
    const stream = session.request({ ':path': '/held' })
    let body = ''
    stream.on('data', (part) => {
      body += part
    })
    const response = await asked.promise
    await clock.advance(2_000)
    const [code] = await goaway
    response.end('finished')
    await once(stream, 'close')
    expect([code, body]).toEqual([0, 'finished'])
  })
})

describe('an idle connection', () => {
  it('is closed after its time, in HTTP/1.1 and HTTP/2', async () => {
    await using sidecar = await start({}, { idle: 100 })
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write(get('/'))
    expect(await answer).toMatch(/at once/)
    const session = await openSession(sidecar.port)
    await once(session, 'close')
  })
})

describe('shutdown', () => {
  it('ends idle connections at once and lets requests in flight finish', async () => {
    const sidecar = await start({}, { drain: 60_000 })
    const idle = await dialPayments(sidecar.port)
    const idleEnds = untilClosed(idle)
    const session = await openSession(sidecar.port)
    const sessionEnds = once(session, 'close')
    asked = Promise.withResolvers()
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write(get('/held'))
    const response = await asked.promise
    const stopped = sidecar[Symbol.asyncDispose]()
    await Promise.all([idleEnds, sessionEnds])
    const refused = request({ host: '127.0.0.1', port: sidecar.port })
    await expect(once(refused, 'response')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    response.end('finished')
    expect(await answer).toMatch(/connection: close[\s\S]*finished/i)
    await stopped
  })

  it('does not wait longer than its limit', async () => {
    const sidecar = await start({}, { drain: 50 })
    asked = Promise.withResolvers()
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write(get('/held'))
    await asked.promise
    await sidecar[Symbol.asyncDispose]()
    expect(await answer).toBe('')
  })
})

describe('tally', () => {
  it('keeps the newest 64 denials and counts all', () => {
    const tally = createTally(systemClock)
    const source = parseSpiffeId(web)
    const nothing = { sourceIp: undefined, sni: undefined }
    for (let port = 0; port < 100; port++) {
      const destination = destinationOf(parseSpiffeId(payments), { port })
      expect(
        tally.count(noPolicies, evaluateTcp(noPolicies, { ...nothing, source, destination })),
      ).toBe(false)
    }
    const counts = tally.take()
    expect(counts?.denied).toBe(100)
    expect(counts?.denials.length).toBe(64)
    expect(counts?.denials[63]?.request.destination.port).toBe(99)
    expect(tally.take()).toBeUndefined()
  })
})

// What is under way when policies change or end: what they still allow goes on, the rest ends.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { createServer as createHttp2, type ServerHttp2Stream } from 'node:http2'
import { createServer } from 'node:net'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MeshState } from '../../decisions/mesh.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { contextFor, createTestSource, stateOf, stateUnder } from '../support/mesh.ts'
import {
  authority,
  dialPayments,
  inboundTo,
  openSession,
  payments,
  sourceOf,
  web,
  webSvid,
} from '../support/shop.ts'
import { type App, listening, startApp, startSidecar, untilClosed } from '../support/sidecar.ts'

const source = sourceOf(payments)
// who lives longer than the policies here
const long = { notAfter: Date.now() + 24 * 3_600_000 }
const longLived = createTestSource(contextFor(authority.issue(payments, long), authority.bundle))
const longWeb = authority.issue(web, long)

const paths = (...list: readonly string[]) =>
  stateOf(`[{ to: [{ operation: { paths: [${list}] } }] }]`)
const both = paths('/a', '/b', '/x.Y/*')
const onlyA = paths('/a')

/** What the workload was asked and has not answered, by path. */
const held = new Map<string, PromiseWithResolvers<ServerResponse>>()
const waiting = (path: string) => {
  const known = held.get(path) ?? Promise.withResolvers<ServerResponse>()
  held.set(path, known)
  return known
}

let app: App
let plain: App
let calls: App
let called = Promise.withResolvers<ServerHttp2Stream>()
beforeAll(async () => {
  app = await startApp(({ url = '' }, response) => {
    if (url.endsWith('?now')) response.end('at once')
    else waiting(url).resolve(response)
  })
  plain = await listening(createServer((socket) => socket.write('welcome')))
  const grpc = createHttp2()
  grpc.on('stream', (stream) => {
    stream.on('error', () => {})
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' })
    called.resolve(stream)
  })
  calls = await listening(grpc)
})
afterAll(async () => {
  for (const it of [app, plain, calls]) await it[Symbol.asyncDispose]()
})

const start = (
  state: MeshState,
  { port, protocol = 'http', clock = systemClock } = { port: app.port },
) => startSidecar({ inbound: [inboundTo(port, { protocol })] }, { source, state, clock })

const get = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nHost: shop\r\n${more}\r\n`

describe('when policies change', () => {
  it('a TCP connection ends that they do not allow any more, and stays while they do', async () => {
    const ports = (port: number) => stateOf(`[{ to: [{ operation: { ports: ["${port}"] } }] }]`)
    await using sidecar = await start(ports(plain.port), { port: plain.port, protocol: 'tcp' })
    const socket = await dialPayments(sidecar.port)
    const closed = untilClosed(socket)
    await once(socket, 'data')
    sidecar.mesh.put(stateOf(`[{ from: [{ source: { principals: ["td.example/*"] } }] }]`))
    expect(sidecar.connections.size).toBe(1)
    expect(socket.destroyed).toBe(false)
    sidecar.mesh.put(ports(1))
    expect(await closed).toBe('welcome')
  })

  it('a request of HTTP/1.1 in flight ends, another goes on, and a kept connection asks anew', async () => {
    await using sidecar = await start(both)
    const [first, second, kept] = [
      await dialPayments(sidecar.port),
      await dialPayments(sidecar.port),
      await dialPayments(sidecar.port),
    ]
    const ends = [untilClosed(first), untilClosed(second), untilClosed(kept)]
    kept.write(get('/b?now'))
    await once(kept, 'data')
    first.write(get('/a', 'Connection: close\r\n'))
    second.write(get('/b'))
    const answer = await waiting('/a').promise
    await waiting('/b').promise
    sidecar.mesh.put(onlyA)
    expect(await ends[1]).toBe('')
    answer.end('finished')
    expect(await ends[0]).toMatch(/^HTTP\/1.1 200[\s\S]*finished/)
    // idle: nothing of it was to be ended
    kept.write(get('/a?now') + get('/b?now', 'Connection: close\r\n'))
    const statuses = [...((await ends[2]) ?? '').matchAll(/HTTP\/1.1 (\d+)/g)].map(
      ([, status]) => status,
    )
    expect(statuses).toEqual(['200', '200', '403'])
  })

  it('streams of HTTP/2 end one by one, and the session stays', async () => {
    held.clear()
    await using sidecar = await start(both)
    const session = await openSession(sidecar.port)
    const [a, b] = ['/a', '/b'].map((path) => session.request({ ':path': path }))
    if (a === undefined || b === undefined) throw new Error('no streams')
    b.on('error', () => {})
    const answer = await waiting('/a').promise
    await waiting('/b').promise
    const over = once(b, 'close')
    sidecar.mesh.put(onlyA)
    await over
    expect(b.rstCode).toBe(8)
    answer.end('finished')
    a.resume()
    await once(a, 'end')
    const next = session.request({ ':path': '/a?now' })
    const [headers] = await once(next, 'response')
    expect(headers[':status']).toBe(200)
    session.destroy()
  })

  it('a gRPC stream ends on both sides', async () => {
    called = Promise.withResolvers()
    await using sidecar = await start(both, { port: calls.port })
    const session = await openSession(sidecar.port)
    const call = session.request({
      ...{ ':method': 'POST', ':path': '/x.Y/Watch', 'content-type': 'application/grpc' },
    })
    call.on('error', () => {})
    await once(call, 'response')
    const workload = await called.promise
    const over = Promise.all([once(call, 'close'), once(workload, 'close')])
    sidecar.mesh.put(onlyA)
    await over
    expect(call.rstCode).toBe(8)
    session.destroy()
  })

  it('a websocket ends on both sides', async () => {
    const ended = Promise.withResolvers<void>()
    await using sockets = await startApp(() => {})
    sockets.server.on('upgrade', (_, socket) => {
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
      )
      socket.resume().once('end', () => ended.resolve())
    })
    await using sidecar = await start(both, { port: sockets.port })
    const socket = await dialPayments(sidecar.port)
    const closed = untilClosed(socket)
    socket.write(get('/b', 'Connection: Upgrade\r\nUpgrade: websocket\r\n'))
    await once(socket, 'data')
    sidecar.mesh.put(onlyA)
    expect(await closed).toMatch(/^HTTP\/1.1 101/)
    await ended.promise
  })

  it('a label that goes takes with it what only it allowed', async () => {
    const text = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: chosen, namespace: shop }
spec: { selector: { matchLabels: { app: pay } }, rules: [{}] }
`
    const labelled = {
      ...stateUnder(text),
      labels: new Map([[source.current()?.svids[0].id ?? webSvid.id, { app: 'pay' }]]),
    }
    await using sidecar = await start(labelled, { port: plain.port, protocol: 'tcp' })
    const socket = await dialPayments(sidecar.port)
    const closed = untilClosed(socket)
    await once(socket, 'data')
    sidecar.mesh.put({ ...labelled, labels: new Map() })
    expect(await closed).toBe('welcome')
  })

  it('a stream ends whose token nobody vouches for any more; one that has expired since does not', async () => {
    held.clear()
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k' }] })
    const clock = createFakeClock(Date.now())
    const token = await new SignJWT({})
      .setProtectedHeader({ alg: 'ES256', kid: 'k' })
      .setIssuer('issuer.example')
      .setSubject('alice')
      .setExpirationTime(Math.floor(clock.now() / 1000) + 60)
      .sign(privateKey)
    const state = (issuer: string, name: string) => {
      const text = `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: ${name}, namespace: shop }
spec: { jwtRules: [{ issuer: ${issuer}, jwks: '${jwks}' }] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: tokens, namespace: shop }
spec: { rules: [{ from: [{ source: { requestPrincipals: ["*"] } }] }] }
`
      return stateUnder(text)
    }
    await using sidecar = await start(state('issuer.example', 'one'), {
      ...{ port: app.port, protocol: 'http', clock },
    })
    const socket = await dialPayments(sidecar.port)
    const closed = untilClosed(socket)
    socket.write(get('/token', `Authorization: Bearer ${token}\r\n`))
    await waiting('/token').promise
    await clock.advance(120_000)
    sidecar.mesh.put(state('issuer.example', 'two'))
    expect(sidecar.connections.size).toBe(1)
    sidecar.mesh.put(state('other.example', 'three'))
    expect(await closed).toBe('')
  })
})

describe('when a policy expires', () => {
  const hour = 3_600_000
  const text = (expires: string) => `apiVersion: castellan.dev/v1
kind: AuthorizationPolicy
metadata: { name: for-now, namespace: shop }
spec: { expires: "${expires}", rules: [{}] }
`
  const rfc3339 = (at: number) => new Date(at).toISOString()

  it('what it alone allowed ends at that time, by the clock, and nothing is allowed anew', async () => {
    const clock = createFakeClock(Date.now())
    const end = clock.now() + 2 * hour
    const policies = compile(readPolicies([{ name: 'f.yaml', text: text(rfc3339(end)) }]), {
      now: clock.now(),
    })
    // certificates do not outlive it in this test
    await using sidecar = await startSidecar(
      { inbound: [inboundTo(plain.port, { protocol: 'tcp', maxConnectionAge: '5h' })] },
      {
        source: longLived,
        state: { ...stateOf('[]'), policies },
        clock,
        limits: { recheck: hour },
      },
    )
    const socket = await dialPayments(sidecar.port, longWeb)
    const closed = untilClosed(socket)
    await once(socket, 'data')
    await clock.advance(2 * hour - 1)
    expect(sidecar.mesh.current().policies).toBe(policies)
    await clock.advance(1)
    expect(await closed).toBe('welcome')
    expect(sidecar.lines.join('')).toContain('a policy has expired')
    expect(sidecar.mesh.current().policies.changesAt).toBeUndefined()
    expect(await untilClosed(await dialPayments(sidecar.port, longWeb))).toBe('')
  })

  it('a set that comes before is waited for instead', async () => {
    const clock = createFakeClock(Date.now())
    const at = (expires: number) => ({
      ...stateOf('[]'),
      policies: compile(readPolicies([{ name: 'f.yaml', text: text(rfc3339(expires)) }]), {
        now: clock.now(),
      }),
    })
    const now = clock.now()
    await using sidecar = await startSidecar(
      { inbound: [inboundTo(1, { protocol: 'tcp' })] },
      { source: longLived, state: at(now + 1000), clock },
    )
    const later = at(now + 5000)
    sidecar.mesh.put(later)
    await clock.advance(4999)
    expect(sidecar.mesh.current()).toBe(later)
    await clock.advance(1)
    expect(sidecar.mesh.current()).not.toBe(later)
  })
})

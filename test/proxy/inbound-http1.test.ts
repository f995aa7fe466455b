import { once } from 'node:events'
import { createServer } from 'node:http'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stateOf } from '../support/mesh.ts'
import { askPayments, dialPayments, inboundTo, payments, sourceOf, web } from '../support/shop.ts'
import { type App, listening, type Sidecar, startSidecar, untilClosed } from '../support/sidecar.ts'

const rules = `[{ from: [{ source: { principals: ["td.example/ns/shop/sa/web"] } }], to: [{ operation: { paths: ["/ok*"] } }] }]`

let app: App
let sidecar: Sidecar
/** request line, raw headers and body of what reached the workload */
let seen: { line: string; headers: string[]; body: string }[] = []

/** In front of a workload on that port. */
const start = (port: number, limits = {}) =>
  startSidecar(
    { inbound: [inboundTo(port)] },
    {
      source: sourceOf(payments),
      state: stateOf(rules),
      limits,
    },
  )

beforeAll(async () => {
  const workload = createServer({ keepAliveTimeout: 60_000 }, async (request, response) => {
    let body = ''
    for await (const part of request) body += part
    seen.push({ line: `${request.method} ${request.url}`, headers: request.rawHeaders, body })
    response.setHeader('x-spiffe-peer-id', 'spiffe://forged/by/workload')
    response.setHeader('connection', 'keep-alive, x-hop')
    response.setHeader('x-hop', 'only for the next')
    response.end('from the workload')
  })
  workload.on('upgrade', (request, socket) => {
    if (request.url === '/ok/no') {
      socket.end('HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno')
      return
    }
    const peer = request.headers['x-spiffe-peer-id']
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\npeer ${peer};`,
    )
    socket.pipe(socket)
  })
  app = await listening(workload)
  sidecar = await start(app.port)
})

afterAll(async () => {
  await sidecar[Symbol.asyncDispose]()
  await app[Symbol.asyncDispose]()
})

beforeEach(() => {
  seen = []
})

const raw = (text: string, port = sidecar.port) => askPayments(port, text)

const get = (path: string, ...lines: string[]) =>
  raw([`GET ${path} HTTP/1.1`, 'Host: shop', 'Connection: close', ...lines, '', ''].join('\r\n'))

const statusesOf = (answer: string) =>
  [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((it) => it[1])

describe('inbound HTTP/1.1', () => {
  it('passes an allowed request on with the identity of the peer', async () => {
    const answer = await get('/ok?a=b')
    expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n/)
    expect(answer).toContain('from the workload')
    const headers = ['host', 'shop', 'x-spiffe-peer-id', web, 'Connection', 'keep-alive']
    expect(seen).toEqual([{ line: 'GET /ok?a=b', headers, body: '' }])
  })

  it('denies with 403 and names no policy', async () => {
    const answer = await get('/secret')
    expect(answer).toMatch(/^HTTP\/1.1 403 /)
    expect(answer).toMatch(/\r\n\r\naccess denied\n$/)
    expect(seen).toEqual([])
  })

  it('forwards the path that was decided about, normalised', async () => {
    await get('/x/../ok/%61//b?q=%2e%2e/')
    expect(seen[0]?.line).toBe('GET /ok/a/b?q=%2e%2e/')
    expect(statusesOf(await get('/ok/../secret'))).toEqual(['403'])
    expect(statusesOf(await get('/ok/%2e%2e/secret'))).toEqual(['403'])
  })

  it('rows 33 and 61: passes on the host of a target in absolute form, not the field', async () => {
    await raw('GET http://Other:80/x/../ok?a=b HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n')
    expect(seen[0]?.line).toBe('GET /ok?a=b')
    expect(seen[0]?.headers.slice(0, 2)).toEqual(['host', 'Other:80'])
    const denied = 'GET https://shop/secret HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'
    expect(statusesOf(await raw(denied))).toEqual(['403'])
  })

  it('strips what a peer says of itself, and what is for one hop', async () => {
    await get(
      '/ok',
      'X-Spiffe-Peer-Id: spiffe://td.example/admin',
      'x_spiffe_peer_id: spiffe://td.example/admin',
      'X-Forwarded-Client-Cert: By=me',
      'X-Forwarded-For: 10.0.0.1',
      'X-Envoy-Original-Path: /admin',
      'Keep-Alive: timeout=5',
      'Proxy-Authorization: Basic eA==',
      'TE: trailers',
      'Upgrade: h2c',
      'HTTP2-Settings: AAMAAABkAAQAAP__',
      'X-Stays: yes',
      'Connection: x-goes, X-Spiffe-Peer-Id',
      'X-Goes: no',
    )
    const headers = ['host', 'shop', 'X-Stays', 'yes', 'x-spiffe-peer-id', web]
    expect(seen[0]?.headers.slice(0, -2)).toEqual(headers)
  })

  it('strips hop-by-hop fields and a forged identity from responses', async () => {
    const answer = await get('/ok')
    expect(answer).not.toMatch(/x-hop|x-spiffe-peer-id/i)
  })

  it('passes bodies on, by length and in chunks, and keeps the connection between requests', async () => {
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write('POST /ok/1 HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc')
    socket.write(
      'PUT /ok/2 HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n',
    )
    socket.write('POST /ok/3 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n')
    expect(statusesOf(await answer)).toEqual(['200', '200', '200'])
    expect(seen.map(({ line, body }) => [line, body])).toEqual([
      ['POST /ok/1', 'abc'],
      ['PUT /ok/2', 'def'],
      ['POST /ok/3', ''],
    ])
  })

  it('decides each request of a pipeline', async () => {
    const one = (path: string) => `GET ${path} HTTP/1.1\r\nHost: shop\r\n\r\n`
    const last = 'GET /ok/2 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'
    const answer = await raw(one('/ok/1') + one('/secret') + last)
    expect(statusesOf(answer)).toEqual(['200', '403', '200'])
    expect(seen.map(({ line }) => line)).toEqual(['GET /ok/1', 'GET /ok/2'])
  })

  it('keeps the connection after refusing a small body, and ends it after a large one', async () => {
    const small = 'POST /secret HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello'
    const next = 'GET /ok HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'
    expect(statusesOf(await raw(small + next))).toEqual(['403', '200'])
    const large = 'POST /secret HTTP/1.1\r\nHost: shop\r\nContent-Length: 999999\r\n\r\nhello'
    const answer = await raw(large)
    expect(statusesOf(answer)).toEqual(['403'])
    expect(answer).toMatch(/connection: close/i)
  })

  it('asks for a body only after the decision', async () => {
    const head = (path: string) =>
      `POST ${path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n`
    expect(statusesOf(await raw(head('/secret')))).toEqual(['403'])
    expect(statusesOf(await raw(`${head('/ok')}hi`))).toEqual(['100', '200'])
    expect(seen[0]?.body).toBe('hi')
    expect(seen[0]?.headers.map((it) => it.toLowerCase())).not.toContain('expect')
  })

  const body = (line: string, ...lines: string[]) =>
    [line, 'Host: shop', ...lines, '', ''].join('\r\n')
  const refused: Readonly<Record<string, readonly [text: string, status: string]>> = {
    'CL and TE': [
      `${body('POST /ok HTTP/1.1', 'Content-Length: 4', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
      '400',
    ],
    'an unknown TE': [body('POST /ok HTTP/1.1', 'Transfer-Encoding: xchunked'), '400'],
    'chunked, but not last': [body('POST /ok HTTP/1.1', 'Transfer-Encoding: chunked, gzip'), '400'],
    'chunked twice': [
      body('POST /ok HTTP/1.1', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'),
      '400',
    ],
    'a coding before chunked': [
      body('POST /ok HTTP/1.1', 'Transfer-Encoding: gzip, chunked'),
      '400',
    ],
    'TE in HTTP/1.0': [
      `${body('POST /ok HTTP/1.0', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
      '400',
    ],
    'two CL': [`${body('POST /ok HTTP/1.1', 'Content-Length: 1', 'Content-Length: 2')}ab`, '400'],
    'two equal CL': [
      `${body('POST /ok HTTP/1.1', 'Content-Length: 1', 'Content-Length: 1')}a`,
      '400',
    ],
    '+CL': [`${body('POST /ok HTTP/1.1', 'Content-Length: +1')}a`, '400'],
    'a list as CL': [`${body('POST /ok HTTP/1.1', 'Content-Length: 1, 1')}a`, '400'],
    'bare LF': ['GET /ok HTTP/1.1\nHost: shop\n\n', '400'],
    'bare LF between headers': ['GET /ok HTTP/1.1\r\nHost: shop\nX: y\r\n\r\n', '400'],
    'obs-fold': ['GET /ok HTTP/1.1\r\nHost: shop\r\nX: a\r\n b\r\n\r\n', '400'],
    'space before colon': [body('GET /ok HTTP/1.1', 'X : a'), '400'],
    'no Host': ['GET /ok HTTP/1.1\r\n\r\n', '400'],
    'no Host in HTTP/1.0': ['GET /ok HTTP/1.0\r\n\r\n', '400'],
    'two Hosts': [body('GET /ok HTTP/1.1', 'Host: other'), '400'],
    'two equal Hosts': [body('GET /ok HTTP/1.1', 'Host: shop'), '400'],
    'a Host that is none': ['GET /ok HTTP/1.1\r\nHost: a/b@c d\r\n\r\n', '400'],
    'absolute form of no HTTP': [body('GET ftp://shop/ok HTTP/1.1'), '400'],
    'absolute form without a host': [body('GET http:///ok HTTP/1.1'), '400'],
    'absolute form with a user': [body('GET http://me@shop/ok HTTP/1.1'), '400'],
    'absolute form without Host': ['GET http://shop/ok HTTP/1.1\r\n\r\n', '400'],
    'asterisk form': [body('OPTIONS * HTTP/1.1'), '400'],
    CONNECT: ['CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n', '400'],
    'an unknown method': [body('HACK /ok HTTP/1.1'), '400'],
    'a NUL in a header': [body('GET /ok HTTP/1.1', 'X: a\0b'), '400'],
    'a NUL in the path': [body('GET /ok%00 HTTP/1.1'), '400'],
    'a fragment': [body('GET /ok#x HTTP/1.1'), '400'],
    'double encoding': [body('GET /ok/%252e%252e/secret HTTP/1.1'), '400'],
    'a broken escape': [body('GET /ok/%zz HTTP/1.1'), '400'],
    'a bad chunk size': [`${body('POST /ok HTTP/1.1', 'Transfer-Encoding: chunked')}-1\r\n`, '400'],
    '40 kB of headers': [body('GET /ok HTTP/1.1', `X: ${'a'.repeat(40_000)}`), '431'],
    '101 headers': [
      body(
        'GET /ok HTTP/1.1',
        ...Array.from({ length: 100 }, (_, i) => `X-${i}: y`),
        'Connection: close',
      ),
      '431',
    ],
    'no HTTP': ['hello\r\n\r\n', '400'],
    'HTTP/2 without ALPN': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '400'],
  }

  for (const [name, [text, status]] of Object.entries(refused)) {
    it(`refuses ${name} with ${status}, and the workload sees nothing`, async () => {
      const socket = await dialPayments(sidecar.port)
      const answer = untilClosed(socket)
      socket.end(text, 'latin1')
      expect(statusesOf(await answer)).toEqual([status])
      expect(seen).toEqual([])
    })
  }

  it('does not wait for slow headers', async () => {
    await using hasty = await start(app.port, { requestHeaders: 200 })
    const answer = await raw('GET /ok HTTP/1.1\r\nHost: sh', hasty.port)
    expect(statusesOf(answer)).toEqual(['408'])
  })

  it('says 502 when the workload does not answer', async () => {
    await using dead = await start(1)
    const request = 'GET /ok HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'
    expect(statusesOf(await raw(request, dead.port))).toEqual(['502'])
    expect(dead.tally.failures).toBe(1)
  })
})

describe('inbound websocket', () => {
  const upgrade = (path: string) =>
    `GET ${path} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n`

  it('opens after the decision and the real 101, early bytes included', async () => {
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write(`${upgrade('/ok')}early;`)
    await once(socket, 'data')
    socket.end('late;')
    const text = await answer
    expect(statusesOf(text)).toEqual(['101'])
    expect(text).toMatch(new RegExp(`peer ${web};early;late;$`))
  })

  it('is denied like any request', async () => {
    const answer = await raw(`${upgrade('/secret')}early;`)
    expect(statusesOf(answer)).toEqual(['403'])
  })

  it('passes the answer of a workload that declines', async () => {
    const answer = await raw(`${upgrade('/ok/no')}GET /secret HTTP/1.1\r\n\r\n`)
    expect(statusesOf(answer)).toEqual(['426'])
    expect(answer).toMatch(/no$/)
  })

  it('ends when the policies do not allow it any more', async () => {
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write(upgrade('/ok'))
    await once(socket, 'data')
    sidecar.mesh.put(stateOf('[]'))
    await answer
    sidecar.mesh.put(stateOf(rules))
  })
})

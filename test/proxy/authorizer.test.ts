// CUSTOM policies at a sidecar: an external authorizer over real sockets, asked before DENY and ALLOW decide.
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTls } from 'node:https'
import { createServer as createTcp } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createAuthorizer } from '../../proxy/authorizer.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { createLog } from '../../runtime/log.ts'
import { testFolder } from '../support/folder.ts'
import { stateUnder } from '../support/mesh.ts'
import { policyText } from '../support/policy-text.ts'
import { dialPayments, inboundTo, openSession, payments, sourceOf, web } from '../support/shop.ts'
import {
  type App,
  listening,
  type Sidecar,
  startApp,
  startSidecar,
  untilClosed,
} from '../support/sidecar.ts'
import { makeTestTls } from '../support/test-tls.ts'

const source = sourceOf(payments)

type Decide = (request: IncomingMessage, response: ServerResponse) => void

/** What reached the workload, and what the authorizer was asked. */
let seen: IncomingMessage[] = []
let asked: { request: IncomingMessage; body: string }[] = []
let decide: Decide = (_, response) => response.end()
let app: App
let authorizer: App

const answering: Decide = (request, response) => {
  let body = ''
  request.on('data', (part) => {
    body += part
  })
  request.once('end', () => asked.push({ request, body }))
  decide(request, response)
}

beforeAll(async () => {
  app = await startApp((request, response) => {
    seen.push(request)
    if (!request.url?.startsWith('/held')) response.end('from the workload')
  })
  authorizer = await startApp(answering)
})
afterAll(async () => {
  for (const it of [app, authorizer]) await it[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
  asked = []
  decide = (_, response) => response.end()
})

const everything = '[{}]'
const custom = (rules = everything, provider = 'ask', name = 'custom') =>
  policyText(rules, { name, action: `CUSTOM, provider: { name: ${provider} }` })
const open = policyText(everything, { name: 'open' })
const pathRule = (path: string) => `[{ to: [{ operation: { paths: ["${path}"] } }] }]`

const at = (port: number, more = {}) => ({ url: `http://127.0.0.1:${port}`, ...more })
const provider = (http = {}, more = {}) => ({
  http: at(authorizer.port, http),
  timeout: '20s',
  ...more,
})

const start = (
  authorizers: object,
  state = stateUnder(custom(), open),
  { protocol = 'http', port = app.port } = {},
) => {
  const inbound = [inboundTo(port, { protocol })]
  return startSidecar({ inbound, authorizers }, { source, state })
}

async function ask(sidecar: Sidecar, line: string, ...fields: readonly string[]): Promise<string> {
  const socket = await dialPayments(sidecar.port)
  const answer = untilClosed(socket)
  socket.write(
    [`${line} HTTP/1.1`, 'Host: shop', 'Connection: close', ...fields, '', ''].join('\r\n'),
  )
  return await answer
}

const statusOf = (answer: string) => Number(answer.slice(9, 12))
const statusTo = async (sidecar: Sidecar, line = 'GET /') => statusOf(await ask(sidecar, line))
const warnings = ({ lines }: Sidecar) =>
  lines.map((line) => JSON.parse(line)).filter(({ authorizer: name }) => name !== undefined)

/** A port where nobody listens. */
async function deadPort(): Promise<number> {
  await using gone = await listening(createTcp())
  return gone.port
}

describe('an authorizer', () => {
  it('that says 200 lets pass what DENY and ALLOW let pass too', async () => {
    const deny = policyText(pathRule('/no'), { name: 'deny', action: 'DENY' })
    const allow = policyText(pathRule('/yes'), { name: 'allow' })
    await using sidecar = await start({ ask: provider() }, stateUnder(custom(), deny, allow))
    expect(await statusTo(sidecar, 'GET /yes')).toBe(200)
    expect(await statusTo(sidecar, 'GET /no')).toBe(403)
    expect(await statusTo(sidecar, 'GET /other')).toBe(403)
    expect(asked.map(({ request }) => request.url)).toEqual(['/yes', '/no', '/other'])
    expect(seen.length).toBe(1)
  })

  it('is asked only about what a CUSTOM rule matches', async () => {
    decide = (_, response) => response.writeHead(403).end()
    await using sidecar = await start(
      { ask: provider() },
      stateUnder(custom(pathRule('/in')), open),
    )
    expect(await statusTo(sidecar, 'GET /out')).toBe(200)
    expect(asked).toEqual([])
    expect(await statusTo(sidecar, 'GET /in')).toBe(403)
    expect(asked.length).toBe(1)
  })

  it('is told method, path, host and the named fields, and never the body', async () => {
    await using sidecar = await start({
      ask: provider({
        pathPrefix: '/check',
        includeRequestHeadersInCheck: ['Cookie', 'x-a-*', '*-z', 'x-spiffe-peer-id'],
        includeAdditionalHeadersInCheck: { 'X-A-Key': 'ours' },
      }),
    })
    const fields = [
      ...['Cookie: c=1', 'X-A-B: ab', 'X-A-Key: theirs', 'y-z: yz', 'Authorization: Bearer x'],
      ...['x-spiffe-peer-id: spiffe://td.example/root', 'X-B: b', 'Content-Length: 4', '', 'body'],
    ]
    expect(statusOf(await ask(sidecar, 'POST /a/./b?q=1', ...fields))).toBe(200)
    const [check] = asked
    expect(check?.body).toBe('')
    const { method, url, headers } = check?.request ?? {}
    expect({ method, url, headers }).toEqual({
      method: 'POST',
      url: '/check/a/b?q=1',
      headers: {
        ...{ host: 'shop', cookie: 'c=1', 'x-a-b': 'ab', 'x-a-key': 'ours', 'y-z': 'yz' },
        ...{ 'x-spiffe-peer-id': web, 'content-length': '0', connection: 'keep-alive' },
      },
    })
  })

  it('that says anything else denies with that status, and with the fields that are named', async () => {
    const given = {
      ...{ location: 'https://login.example/', 'www-authenticate': 'Basic', 'x-why': 'so' },
      ...{ 'set-cookie': ['a=1', 'b=2'], 'x-inner': 'secret', 'x-spiffe-peer-id': payments },
    }
    await using sidecar = await start({
      ask: provider({ headersToDownstreamOnDeny: ['set-cookie', 'x-w*'] }),
    })
    for (const status of [302, 401, 404, 429, 500, 503]) {
      decide = (_, response) => response.writeHead(status, given).end('not for the caller')
      const answer = await ask(sidecar, 'GET /')
      expect(statusOf(answer)).toBe(status)
      for (const line of [
        'location: https://login.example/',
        'www-authenticate: Basic',
        'x-why: so',
        'set-cookie: a=1',
        'set-cookie: b=2',
      ]) {
        expect(answer).toContain(`\r\n${line}\r\n`)
      }
      expect(answer).not.toMatch(/x-inner|peer-id|not for the caller/)
    }
    expect(seen).toEqual([])
    expect(sidecar.tally.take()?.flows).toMatchObject([
      { outcome: 'denied', policy: 'shop/custom', rule: 0, count: 6 },
    ])
  })

  it('whose denial looks like a success or like no answer is told as 403', async () => {
    await using sidecar = await start({ ask: provider() })
    for (const status of [201, 204, 206, 304]) {
      decide = (_, response) => response.writeHead(status).end()
      expect(await statusTo(sidecar)).toBe(403)
    }
    expect(seen).toEqual([])
  })

  it('that the spec does not name denies, and nobody is asked', async () => {
    await using sidecar = await start({ other: provider() })
    expect(await statusTo(sidecar)).toBe(403)
    expect(asked).toEqual([])
  })

  it('is one of several: each has to consent', async () => {
    const second = custom(pathRule('/both'), 'second', 'second')
    const state = stateUnder(custom(), second, open)
    decide = ({ url }, response) => response.writeHead(url === '/2/both' ? 418 : 200).end()
    await using sidecar = await start(
      { ask: provider({ pathPrefix: '/1' }), second: provider({ pathPrefix: '/2' }) },
      state,
    )
    expect(await statusTo(sidecar, 'GET /one')).toBe(200)
    expect(await statusTo(sidecar, 'GET /both')).toBe(418)
    expect(asked.map(({ request }) => request.url)).toEqual(['/1/one', '/1/both', '/2/both'])
    await using half = await start({ ask: provider({ pathPrefix: '/1' }) }, state)
    expect(await statusTo(half, 'GET /both')).toBe(403)
  })

  it('is not asked about a TCP connection, which is denied', async () => {
    const state = stateUnder(custom(), open)
    await using sidecar = await start({ ask: provider() }, state, { protocol: 'tcp' })
    const socket = await dialPayments(sidecar.port)
    expect(await untilClosed(socket)).toBe('')
    expect(asked).toEqual([])
  })

  it('is reached through a socket, and over TLS by its name alone', async () => {
    using folder = testFolder()
    const socketPath = join(folder.path, 'authz.sock')
    const local = createServer(answering).listen(socketPath)
    await once(local, 'listening')
    await using byPath = await start({
      ask: { http: { url: `unix://${socketPath}` }, timeout: '20s' },
    })
    expect(await statusTo(byPath)).toBe(200)
    local.close()
    local.closeAllConnections()
    const serving = async (name: string) => {
      const tls = await makeTestTls(name)
      const roots = join(folder.path, `${name}.pem`)
      writeFileSync(roots, tls.ca)
      const server = await listening(createTls({ cert: tls.cert, key: tls.key }, answering))
      const http = { url: `https://localhost:${server.port}`, roots }
      return { server, http }
    }
    const [right, wrong] = [await serving('localhost'), await serving('elsewhere')]
    await using good = await start({ ask: { http: right.http, timeout: '20s' } })
    expect([await statusTo(good), await statusTo(good)]).toEqual([200, 200])
    await using other = await start({ ask: { http: wrong.http, timeout: '20s' } })
    expect(await statusTo(other)).toBe(403)
    const { url } = right.http
    await using stranger = await start({ ask: { http: { url }, timeout: '20s' } })
    expect(await statusTo(stranger)).toBe(403)
    expect(asked.length).toBe(3)
    for (const { server } of [right, wrong]) await server[Symbol.asyncDispose]()
  })
})

describe('an authorizer without an answer', () => {
  it('row 136: unreachable, denies with statusOnError, or with failOpen lets pass and says so', async () => {
    const http = at(await deadPort())
    await using closed = await start({ ask: { http, timeout: '20s' } })
    expect(await statusTo(closed)).toBe(403)
    await using custom503 = await start({ ask: { http, timeout: '20s', statusOnError: 503 } })
    expect(await statusTo(custom503)).toBe(503)
    expect(seen).toEqual([])
    expect(warnings(custom503)).toMatchObject([
      { level: 'warn', authorizer: 'ask', msg: 'no answer of an authorizer: denied' },
    ])
    const failing = { http: { ...http, headersToUpstreamOnAllow: ['x-role'] }, timeout: '20s' }
    await using opened = await start({ ask: { ...failing, failOpen: true } })
    expect(statusOf(await ask(opened, 'GET /', 'x-role: admin'))).toBe(200)
    // nobody has said so
    expect(seen[0]?.headers['x-role']).toBeUndefined()
    expect(warnings(opened)).toMatchObject([
      {
        level: 'warn',
        authorizer: 'ask',
        msg: 'no answer of an authorizer: passed on, as failOpen says',
      },
    ])
    expect(warnings(opened)[0].reason).toContain('ECONNREFUSED')
    expect([closed.tally.failures, opened.tally.failures]).toEqual([1, 1])
  })

  it('in time, or with something else than HTTP, is one without', async () => {
    decide = () => {}
    await using silent = await start({ ask: provider({}, { timeout: '50ms', statusOnError: 504 }) })
    expect(await statusTo(silent)).toBe(504)
    decide = ({ socket }) => socket.destroy()
    await using broken = await start({ ask: provider({}, { statusOnError: 502 }) })
    expect(await statusTo(broken)).toBe(502)
    await using odd = await listening(createTcp((socket) => socket.end('SSH-2.0\r\n')))
    await using noHttp = await start({ ask: { http: at(odd.port), timeout: '20s' } })
    expect(await statusTo(noHttp)).toBe(403)
    expect(seen).toEqual([])
  })

  it('is not made so by DENY: failOpen opens nothing else', async () => {
    const deny = policyText(pathRule('/no'), { name: 'deny', action: 'DENY' })
    const failing = { http: at(await deadPort()), timeout: '20s', failOpen: true }
    await using sidecar = await start({ ask: failing }, stateUnder(custom(), deny, open))
    expect(await statusTo(sidecar, 'GET /no')).toBe(403)
  })

  it('is denied when it could not even be asked, whatever failOpen says', async () => {
    const { authorizers } = proxySpec.parse({
      inbound: [inboundTo(1)],
      authorizers: { ask: provider({}, { failOpen: true }) },
    })
    const [spec] = Object.values(authorizers)
    if (spec === undefined) throw new Error('no authorizer')
    let failures = 0
    using direct = createAuthorizer(spec, {
      name: 'ask',
      log: createLog({ name: 'test', level: 'silent' }),
      onFailure: () => failures++,
      headerBytes: 16_384,
      identityHeader: 'x-spiffe-peer-id',
    })
    const { signal } = new AbortController()
    const check = { method: 'GET', path: '/a b', host: 'shop', headers: [] }
    expect(await direct.ask(check, signal)).toMatchObject({
      ...{ kind: 'refusal', refusal: { status: 403 } },
    })
    expect([failures, asked.length]).toEqual([1, 0])
    // so many that more would only wait: nobody opens it by a flood
    decide = () => {}
    const flood = new AbortController()
    const good = { ...check, path: '/' }
    const waiting = Array.from({ length: 1024 }, () => direct.ask(good, flood.signal))
    expect(await direct.ask(good, signal)).toMatchObject({ kind: 'refusal' })
    expect(failures).toBe(2)
    flood.abort()
    const ends = await Promise.allSettled(waiting)
    expect(ends.every(({ status }) => status === 'rejected')).toBe(true)
    decide = (_, response) => response.end()
    expect(await direct.ask(good, signal)).toMatchObject({ kind: 'consent' })
    expect(failures).toBe(2)
  })

  it('is asked on a fresh connection when it had closed the kept one', async () => {
    await using sidecar = await start({ ask: provider() })
    expect(await statusTo(sidecar, 'POST /')).toBe(200)
    const { server } = authorizer
    const kept = asked[0]?.request.socket
    decide = (request, response) => {
      if (request.socket === kept) request.socket.destroy()
      else response.end()
    }
    expect(await statusTo(sidecar, 'POST /')).toBe(200)
    expect(server.listening).toBe(true)
    expect(asked.length).toBe(3)
  })
})

describe('what an authorizer adds', () => {
  const roles: Decide = (_, response) =>
    response.writeHead(200, { 'x-role': 'user', 'x-inner': 'secret', host: 'evil' }).end()

  it('row 138: is a field of the request only if listed, and never what the caller wrote there', async () => {
    decide = roles
    await using listed = await start({ ask: provider({ headersToUpstreamOnAllow: ['x-role'] }) })
    expect(statusOf(await ask(listed, 'GET /', 'X-Role: admin', 'x-role: root'))).toBe(200)
    expect(seen[0]?.headersDistinct['x-role']).toEqual(['user'])
    expect(seen[0]?.headers['x-inner']).toBeUndefined()
    decide = (_, response) => response.end()
    expect(statusOf(await ask(listed, 'GET /', 'X-Role: admin'))).toBe(200)
    expect(seen[1]?.headers['x-role']).toBeUndefined()
    decide = roles
    await using unlisted = await start({ ask: provider() })
    expect(statusOf(await ask(unlisted, 'GET /', 'X-Role: admin'))).toBe(200)
    expect(seen[2]?.headersDistinct['x-role']).toEqual(['admin'])
  })

  it('is neither host, framing nor the peer, whatever the pattern', async () => {
    decide = (_, response) =>
      response
        .writeHead(200, { host: 'evil', te: 'x', 'x-spiffe-peer-id': payments, 'x-ok': '1' })
        .end()
    const headersToUpstreamOnAllow = ['h*', 't*', 'x-*', '*h', '*host']
    await using sidecar = await start({ ask: provider({ headersToUpstreamOnAllow }) })
    expect(await statusTo(sidecar)).toBe(200)
    const { host, te, 'x-spiffe-peer-id': peer, 'x-ok': ok } = seen[0]?.headers ?? {}
    expect({ host, te, peer, ok }).toEqual({ host: 'shop', te: undefined, peer: web, ok: '1' })
  })

  it('is what DENY and ALLOW decide about', async () => {
    const ifRole = (role: string) =>
      `[{ when: [{ key: "request.headers[x-role]", values: [${role}] }] }]`
    const deny = policyText(ifRole('banned'), { name: 'deny', action: 'DENY' })
    const allow = policyText(ifRole('user'), { name: 'allow' })
    const state = stateUnder(custom(), deny, allow)
    await using sidecar = await start(
      { ask: provider({ headersToUpstreamOnAllow: ['x-role'] }) },
      state,
    )
    const with_ = async (role: string | undefined) => {
      decide = (_, response) =>
        response.writeHead(200, role === undefined ? {} : { 'x-role': role }).end()
      return statusOf(await ask(sidecar, 'GET /', 'x-role: user'))
    }
    expect([await with_('user'), await with_('banned'), await with_(undefined)]).toEqual([
      200, 403, 403,
    ])
  })

  it('is a field of the answer if listed, beside those of the workload', async () => {
    decide = (_, response) =>
      response.writeHead(200, { 'x-session': 's', 'x-inner': 'secret' }).end()
    await using sidecar = await start({
      ask: provider({ headersToDownstreamOnAllow: ['x-session'] }),
    })
    const answer = await ask(sidecar, 'GET /')
    expect(answer).toMatch(/^HTTP\/1.1 200[\s\S]*\r\nx-session: s\r\n[\s\S]*from the workload/)
    expect(answer).not.toContain('x-inner')
  })
})

describe('over other protocols', () => {
  async function answerTo(sidecar: Sidecar, headers: Readonly<Record<string, string>>) {
    const session = await openSession(sidecar.port)
    const stream = session.request({ ':path': '/a', ...headers })
    const [answer] = await once(stream.resume(), 'response')
    session.destroy()
    return answer
  }

  it('HTTP/2 and gRPC are asked about, changed and denied alike', async () => {
    decide = (_, response) => response.writeHead(200, { 'x-role': 'user', 'x-session': 's' }).end()
    const lists = {
      headersToUpstreamOnAllow: ['x-role'],
      headersToDownstreamOnAllow: ['x-session'],
    }
    await using sidecar = await start({ ask: provider(lists) })
    const answer = await answerTo(sidecar, { 'x-role': 'admin' })
    expect(answer).toMatchObject({ ':status': 200, 'x-session': 's' })
    expect(seen[0]?.headersDistinct['x-role']).toEqual(['user'])
    decide = (_, response) => response.writeHead(401, { 'www-authenticate': 'Basic' }).end()
    expect(await answerTo(sidecar, {})).toMatchObject({
      ':status': 401,
      'www-authenticate': 'Basic',
    })
    const grpc = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' }
    expect(await answerTo(sidecar, grpc)).toMatchObject({ ':status': 200, 'grpc-status': '16' })
    expect(asked.length).toBe(3)
  })

  it('a websocket is asked about before the workload sees it', async () => {
    decide = (_, response) => response.writeHead(403, { 'set-cookie': ['a=1', 'b=2'] }).end()
    await using sidecar = await start({
      ask: provider({ headersToDownstreamOnDeny: ['set-cookie'] }),
    })
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write(
      'GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    )
    expect(await answer).toMatch(/^HTTP\/1.1 403[\s\S]*set-cookie: a=1\r\nset-cookie: b=2\r\n/)
    expect(seen).toEqual([])
  })
})

describe('what is under way', () => {
  /** A request that waits at the workload. */
  async function held(sidecar: Sidecar) {
    const socket = await dialPayments(sidecar.port)
    const answer = untilClosed(socket)
    socket.write('GET /held HTTP/1.1\r\nHost: shop\r\n\r\n')
    await expect.poll(() => seen.length, { timeout: 20_000 }).toBe(1)
    return { socket, answer }
  }
  const rule = (path: string) => custom(pathRule(path))

  it('was asked about once: other policies change nothing, its rule as it was neither', async () => {
    await using sidecar = await start({ ask: provider() }, stateUnder(rule('/held'), open))
    const { socket, answer } = await held(sidecar)
    const more = policyText(pathRule('/x'), { name: 'deny', action: 'DENY' })
    sidecar.mesh.put(stateUnder(more, rule('/held'), open))
    expect(asked.length).toBe(1)
    expect(sidecar.connections.size).toBe(1)
    // a rule that reads otherwise is one that nobody consented to
    sidecar.mesh.put(stateUnder(more, rule('/held*'), open))
    expect(await answer).toBe('')
    expect(socket.destroyed).toBe(true)
    expect(asked.length).toBe(1)
  })

  it('ends when a CUSTOM policy comes, when its provider is another, and when DENY says so', async () => {
    const deny = policyText(pathRule('/held'), { name: 'deny', action: 'DENY' })
    const next = [
      stateUnder(rule('/held'), custom(everything, 'other', 'other'), open),
      stateUnder(custom(pathRule('/held'), 'other'), open),
      stateUnder(rule('/held'), deny, open),
    ]
    for (const state of next) {
      seen = []
      await using sidecar = await start(
        { ask: provider(), other: provider() },
        stateUnder(rule('/held'), open),
      )
      const { answer } = await held(sidecar)
      sidecar.mesh.put(state)
      expect(await answer).toBe('')
    }
    expect(asked.length).toBe(3)
  })

  it('at the authorizer is decided by the policies that are in force when it answers', async () => {
    const waiting = Promise.withResolvers<ServerResponse>()
    decide = (_, response) => waiting.resolve(response)
    await using sidecar = await start({ ask: provider() })
    const answer = ask(sidecar, 'GET /')
    const response = await waiting.promise
    const deny = policyText(everything, { name: 'deny', action: 'DENY' })
    sidecar.mesh.put(stateUnder(custom(), deny, open))
    response.end()
    expect(statusOf(await answer)).toBe(403)
    expect(seen).toEqual([])
  })

  it('at the authorizer ends with its caller, and nothing reaches the workload', async () => {
    const waiting = Promise.withResolvers<IncomingMessage>()
    decide = (request) => waiting.resolve(request)
    await using sidecar = await start({ ask: provider({}, { failOpen: true }) })
    const socket = await dialPayments(sidecar.port)
    socket.write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n')
    const { socket: atAuthorizer } = await waiting.promise
    const over = once(atAuthorizer, 'close')
    socket.destroy()
    await over
    await expect.poll(() => sidecar.connections.size, { timeout: 20_000 }).toBe(0)
    expect(seen).toEqual([])
    expect(warnings(sidecar)).toEqual([])
  })

  it('at the authorizer is answered though the sidecar stops', async () => {
    for (const [status, expected] of [
      [200, 200],
      [418, 418],
    ] as const) {
      const waiting = Promise.withResolvers<ServerResponse>()
      decide = (_, response) => waiting.resolve(response)
      const sidecar = await start({ ask: provider() })
      const socket = await dialPayments(sidecar.port)
      const answer = untilClosed(socket)
      socket.write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n')
      const response = await waiting.promise
      const stopped = sidecar[Symbol.asyncDispose]()
      response.writeHead(status).end()
      expect(statusOf(await answer)).toBe(expected)
      await stopped
    }
  })
})

import { once } from 'node:events'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createFetch, type Fetch } from '../../client/fetch.ts'
import { peerIdOf } from '../../client/peer.ts'
import { createHttpServer } from '../../client/tls-server.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { matchId, matchMemberOf } from '../../spiffe/match.ts'
import { makeTestAuthority } from '../support/mesh.ts'
import { freePort } from '../support/ports.ts'
import { tlsSource } from './tls-source.ts'

const td = makeTestAuthority('td')
const server = parseSpiffeId('spiffe://td/server')
const client = parseSpiffeId('spiffe://td/client')
const accept = matchId(server)
const theirs = tlsSource(td.issue(server), td.bundle)
const ours = tlsSource(td.issue(client), td.bundle)

const handlers = new Map<string, RequestListener>()
/** as the server has seen them: one entry per connection */
const connections = new Set<object>()
const http = createHttpServer(theirs, { accept: matchId(client) }, (request, response) => {
  connections.add(request.socket)
  const { pathname } = new URL(request.url ?? '', 'https://server')
  const handler = handlers.get(pathname)
  if (handler === undefined) response.writeHead(404).end()
  else handler(request, response)
})
http.keepAliveTimeout = 60_000
let origin = ''
let fetch: Fetch

function serve(path: string, handler: RequestListener): string {
  handlers.set(path, handler)
  return `${origin}${path}`
}

/** Resolves with what the handler at `path` was called with. */
async function asked(path: string): Promise<readonly [IncomingMessage, ServerResponse]> {
  return new Promise((resolve) => serve(path, (...pair) => resolve(pair)))
}

async function closed(stream: IncomingMessage | ServerResponse): Promise<void> {
  stream.on('error', () => {})
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
}

beforeAll(async () => {
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const bound: AddressInfo | string | null = http.address()
  if (bound === null || typeof bound === 'string') throw new Error('no port')
  origin = `https://127.0.0.1:${bound.port}`
  fetch = createFetch(ours)
})

afterAll(() => {
  fetch[Symbol.dispose]()
  http.closeAllConnections()
  http.close()
})

describe('fetch', () => {
  it('asks a server that has proven its ID, as a client that has', async () => {
    const url = serve('/who', ({ method, socket, url }, response) => {
      response.setHeader('x-peer', peerIdOf(socket) ?? 'nobody')
      response.end(`${method} ${url}`)
    })
    const response = await fetch(`${url}?a=b`, { accept })
    expect(response).toBeInstanceOf(Response)
    expect([response.status, response.statusText, response.url]).toEqual([200, 'OK', `${url}?a=b`])
    expect(response.headers.get('x-peer')).toBe(client)
    expect(await response.text()).toBe('GET /who?a=b')
  })

  it('sends method, headers and bodies of all kinds', async () => {
    const url = serve('/echo', (request, response) => {
      const { method = '', headers } = request
      response.setHeader(
        'x-seen',
        `${method} ${headers['content-type']} ${headers['content-length']}`,
      )
      request.pipe(response)
    })
    const bodies = [
      ['a text', 'text/plain;charset=UTF-8 6'],
      [Buffer.from('bytes'), 'undefined 5'],
      [new URLSearchParams({ a: 'b' }), 'application/x-www-form-urlencoded;charset=UTF-8 3'],
      [new Blob(['blob'], { type: 'x/y' }), 'x/y 4'],
      [ReadableStream.from([Buffer.from('in '), Buffer.from('parts')]), 'undefined undefined'],
    ] as const
    for (const [body, seen] of bodies) {
      const response = await fetch(url, { accept, method: 'POST', body, headers: { 'x-a': 'b' } })
      expect(response.headers.get('x-seen')).toBe(`POST ${seen}`)
      expect((await response.text()).length).toBeGreaterThan(2)
    }
  })

  it('streams in both directions', async () => {
    const incoming = asked('/stream')
    const body = new TransformStream<Uint8Array, Uint8Array>()
    const writer = body.writable.getWriter()
    const answer = fetch(`${origin}/stream`, { accept, method: 'POST', body: body.readable })
    const written = writer.write(Buffer.from('first'))
    const [request, response] = await incoming
    const [part]: unknown[] = await once(request, 'data')
    expect(String(part)).toBe('first')
    await written
    response.write('half')
    const reader = (await answer).body?.getReader()
    expect(Buffer.from((await reader?.read())?.value ?? []).toString()).toBe('half')
    await writer.close()
    response.end()
    expect(await reader?.read()).toMatchObject({ done: true })
  })

  it('hands on answers without body, several cookies, and redirects as they are', async () => {
    const none = serve('/none', (_, response) => void response.writeHead(204).end())
    expect((await fetch(none, { accept })).body).toBeNull()
    const head = serve('/head', (_, response) => void response.writeHead(200, { a: 'b' }).end())
    const answer = await fetch(head, { accept, method: 'HEAD' })
    expect([answer.body, answer.headers.get('a')]).toEqual([null, 'b'])
    const cookies = serve('/cookies', (_, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2']).end('x')
    })
    const { headers } = await fetch(cookies, { accept })
    expect(headers.getSetCookie()).toEqual(['a=1', 'b=2'])
    const moved = serve('/moved', (_, response) => {
      response.writeHead(302, { location: 'http://127.0.0.1/' }).end()
    })
    expect((await fetch(moved, { accept })).status).toBe(302)
  })

  it('refuses a server that is not accepted, before it has the request', async () => {
    let calls = 0
    const url = serve('/secret', (_, response) => {
      calls++
      response.end()
    })
    // there is a kept connection to this server already, of another matcher
    await (await fetch(url, { accept })).text()
    const other = matchId(parseSpiffeId('spiffe://td/other'))
    await expect(fetch(url, { accept: other, method: 'POST', body: 'x' })).rejects.toMatchObject({
      code: 'ERR_UNTRUSTED',
      message: 'the peer is spiffe://td/server, expected spiffe://td/other',
    })
    expect(calls).toBe(1)
  })

  it('has no matcher that nobody wrote, and no way without TLS', async () => {
    const nothing = JSON.parse('{}')
    await expect(fetch(origin, nothing)).rejects.toThrow('accept has to be a matcher')
    await expect(fetch('http://127.0.0.1/', { accept })).rejects.toThrow('is not https')
  })

  it('is refused by a server that does not accept it', async () => {
    using stranger = createFetch(tlsSource(td.issue('spiffe://td/stranger'), td.bundle))
    const url = serve('/closed', (_, response) => void response.end('come in'))
    await expect(stranger(url, { accept })).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
    const nobody = `https://127.0.0.1:${await freePort()}/`
    await expect(fetch(nobody, { accept })).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' })
  })

  it('keeps connections for the same matcher, and gives them up when its SVID changes', async () => {
    using own = createFetch(ours)
    const url = serve('/kept', (_, response) => void response.end('x'))
    const ask = async (matcher = accept) => {
      const before = new Set(connections)
      await (await own(url, { accept: matcher })).text()
      return [...connections].some((it) => !before.has(it))
    }
    expect(await ask()).toBe(true)
    expect(await ask()).toBe(false)
    const members = matchMemberOf(parseTrustDomain('td'))
    expect(await ask(members)).toBe(true)
    ours.put(td.issue(client), td.bundle)
    expect(await ask()).toBe(true)
    expect(await ask()).toBe(false)
    expect(await ask(members)).toBe(true)
  })

  it('asks again where a kept connection was dead, and never sends a POST twice', async () => {
    using own = createFetch(ours)
    const url = serve('/dying', (request, response) => {
      // answers, and breaks the next request on this connection
      if (Reflect.get(request.socket, 'isDying')) return void request.socket.destroy()
      Reflect.set(request.socket, 'isDying', true)
      request.resume()
      response.end('x')
    })
    await (await own(url, { accept })).text()
    expect(await (await own(url, { accept })).text()).toBe('x')
    await expect(own(url, { accept, method: 'POST', body: 'once' })).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
    })
  })

  it('can be given up before and within the answer', async () => {
    const reason = new Error('enough')
    const aborted = AbortSignal.abort(reason)
    await expect(fetch(origin, { accept, signal: aborted })).rejects.toBe(reason)

    const early = new AbortController()
    const pending = asked('/pending')
    const answer = fetch(`${origin}/pending`, { accept, signal: early.signal })
    const [request] = await pending
    early.abort(reason)
    await expect(answer).rejects.toBe(reason)
    await closed(request)

    const late = new AbortController()
    const half = asked('/half')
    const started = fetch(`${origin}/half`, { accept, signal: late.signal })
    const [, response] = await half
    response.write('half')
    const { body } = await started
    late.abort(reason)
    await expect(body && text(body)).rejects.toBe(reason)
    await closed(response)
  })

  it('WA-15 asks nobody once the identity is withdrawn', async () => {
    const lost = tlsSource(td.issue(client), td.bundle)
    using own = createFetch(lost)
    const url = serve('/lost', (_, response) => void response.end('x'))
    await (await own(url, { accept })).text()
    lost.withdraw()
    await expect(own(url, { accept })).rejects.toMatchObject({ code: 'ERR_NO_IDENTITY' })
  })

  it('fails no request while both sides rotate', async () => {
    using own = createFetch(ours)
    const url = serve('/rotating', (request, response) => request.pipe(response))
    for (let i = 0; i < 15; i++) {
      const posts = [1, 2, 3].map(() => own(url, { accept, method: 'POST', body: 'body' }))
      if (i % 3 === 0) theirs.put(td.issue(server), td.bundle)
      if (i % 2 === 0) ours.put(td.issue(client), td.bundle)
      for (const response of await Promise.all(posts)) expect(await response.text()).toBe('body')
    }
  })
})

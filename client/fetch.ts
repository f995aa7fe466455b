// fetch over mutual TLS: the peer has to be whom the call accepts, before the request is sent.
import { type ClientRequest, type IncomingMessage, request as send } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Clock, systemClock } from '../runtime/clock.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import type { Matcher } from '../spiffe/match.ts'
import { createPool, type Pool } from './connection-pool.ts'
import type { TlsSource } from './credential.ts'
import { requireMatcher } from './peer.ts'
import type { SvidPicker } from './x509-source.ts'

export interface FetchInit extends RequestInit {
  /** who has to answer; there is no default. Calls with the same function share connections. */
  readonly accept: Matcher
}

/** As the global `fetch`, but for redirects: those are answers like any other. */
export interface Fetch extends Disposable {
  (url: string | URL, init: FetchInit): Promise<Response>
}

export interface FetchOptions {
  /** which of several identities to show; the default one when left out */
  readonly pick?: SvidPicker
  readonly clock?: Clock
}

/** What goes out, in a form that can go out twice unless it is a stream. */
interface Outgoing {
  readonly request: Request
  readonly body: Buffer | Readable | undefined
}

const repeatable = ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']
const bodiless = [204, 205, 304]

async function outgoingOf(url: string | URL, init: FetchInit): Promise<Outgoing> {
  const { body } = init
  const request = new Request(url, { ...init, duplex: 'half' })
  if (new URL(request.url).protocol !== 'https:')
    throw new TypeError(`${request.url} is not https: there is no fetch without mutual TLS`)
  if (body === undefined || body === null) return { request, body: undefined }
  const isStream = typeof body === 'object' && Symbol.asyncIterator in body
  if (isStream && request.body !== null) return { request, body: Readable.fromWeb(request.body) }
  return { request, body: Buffer.from(await request.arrayBuffer()) }
}

function start({ request, body }: Outgoing, pool: Pool, accept: Matcher): ClientRequest {
  const { hostname, port, pathname, search } = new URL(request.url)
  const headers = Object.fromEntries(request.headers)
  const sent = send({
    agent: pool.agentFor(accept),
    defaultPort: 443,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? 443 : port,
    path: pathname + search,
    method: request.method,
    headers: Buffer.isBuffer(body) ? { ...headers, 'content-length': body.length } : headers,
  })
  if (body instanceof Readable) pipeline(body, sent).catch((error: Error) => sent.destroy(error))
  else sent.end(body)
  return sent
}

function responseOf(message: IncomingMessage, { method, url }: Request): Response {
  const { statusCode: status = 0, statusMessage: statusText = '', rawHeaders } = message
  const headers = new Headers()
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    headers.append(rawHeaders[i] ?? '', rawHeaders[i + 1] ?? '')
  const isEmpty = method === 'HEAD' || bodiless.includes(status)
  if (isEmpty) message.resume()
  const body = isEmpty ? null : Readable.toWeb(message)
  const response = new Response(body, { status, statusText, headers })
  return Object.defineProperty(response, 'url', { value: url })
}

interface Attempt {
  /** resolves with the head; the body is cut off when the signal is aborted */
  readonly answer: Promise<Response>
  /** Whether it went over a connection that the server may have ended meanwhile. */
  wasKept(): boolean
}

const reasonOf = ({ reason }: AbortSignal) =>
  reason instanceof Error ? reason : new Error('aborted', { cause: reason })

function attempt(outgoing: Outgoing, pool: Pool, accept: Matcher): Attempt {
  const { promise: answer, resolve, reject } = Promise.withResolvers<Response>()
  const { signal } = outgoing.request
  const sent = start(outgoing, pool, accept)
  let message: IncomingMessage | undefined
  const abort = () => {
    message?.destroy(reasonOf(signal))
    sent.destroy(reasonOf(signal))
  }
  signal.addEventListener('abort', abort, { once: true })
  sent.once('close', () => signal.removeEventListener('abort', abort))
  sent.on('error', reject)
  sent.once('response', (incoming) => {
    message = incoming
    try {
      resolve(responseOf(incoming, outgoing.request))
    } catch (error) {
      incoming.destroy()
      reject(error)
    }
  })
  return { answer, wasKept: () => sent.reusedSocket }
}

/** Asks again as long as kept connections turn out to be dead: that says nothing about the server. */
async function ask(outgoing: Outgoing, pool: Pool, accept: Matcher): Promise<Response> {
  const { request, body } = outgoing
  const mayRepeat = !(body instanceof Readable) && repeatable.includes(request.method)
  for (;;) {
    const { answer, wasKept } = attempt(outgoing, pool, accept)
    try {
      return await answer
    } catch (error) {
      if (request.signal.aborted || !mayRepeat || !wasKept()) throw error
    }
  }
}

/**
 * Rejects with ERR_UNTRUSTED when somebody else is there, ERR_UNAVAILABLE when nobody answers, and with
 * the reason of the signal. Disposing ends its connections.
 */
export function createFetch(source: TlsSource, options: FetchOptions = {}): Fetch {
  const { clock = systemClock, pick } = options
  const pool = createPool(source, pick === undefined ? { clock } : { clock, pick })
  async function fetch(url: string | URL, init: FetchInit): Promise<Response> {
    requireMatcher(init?.accept)
    const outgoing = await outgoingOf(url, init)
    const { signal } = outgoing.request
    signal.throwIfAborted()
    try {
      return await ask(outgoing, pool, init.accept)
    } catch (cause) {
      if (signal.aborted) throw signal.reason
      if (hasCode(cause)) throw cause
      const { origin } = new URL(outgoing.request.url)
      throw new IdentityError('ERR_UNAVAILABLE', `no answer from ${origin}`, { cause })
    }
  }
  return Object.assign(fetch, { [Symbol.dispose]: () => pool[Symbol.dispose]() })
}

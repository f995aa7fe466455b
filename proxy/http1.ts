// HTTP/1.1 as it comes in, from peers and from local programs: read strictly, decided, passed on.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { countOf, fieldOf } from '../policies/attributes/fields.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Core } from './core.ts'
import { type Doors, isRefusal, type Passage, type Refusal, settle } from './door.ts'
import { startExchange } from './exchange.ts'
import { bodyOf, type Framing, forward } from './forward.ts'
import { hostOf, passingRequest, passingResponse } from './headers.ts'
import type { Route } from './onward.ts'
import { passUpgrade } from './upgrade.ts'

/** What it needs of a sidecar. */
type Part = Pick<Core, 'clock' | 'limits' | 'log' | 'tally' | 'identityHeader'>

const hostGrammar = /^[A-Za-z0-9._~!$&'()*+,;=:%[\]-]*$/
const malformed: Refusal = { status: 400, text: 'bad request' }
// a body of at most this size is read to its end, so that the connection can be kept after a refusal
const drainable = 64 * 1024

// an empty host is none that could be meant (RFC 9110 §4.2.1)
const absoluteForm = /^https?:\/\/[^/?#]/i

/** What the parser lets pass and two programs could understand differently. */
function problemOf(request: IncomingMessage, mostHeaders: number): Refusal | undefined {
  const { rawHeaders, httpVersion, url = '' } = request
  if (rawHeaders.length / 2 > mostHeaders) return { status: 431, text: 'too many header fields' }
  if (!url.startsWith('/') && !absoluteForm.test(url)) return malformed
  if (countOf(rawHeaders, 'host') !== 1) return malformed
  const hosts = [fieldOf(rawHeaders, 'host') ?? '', hostOf(request)]
  if (!hosts.every((host) => hostGrammar.test(host))) return malformed
  const encodings = countOf(rawHeaders, 'transfer-encoding')
  if (encodings === 0) return undefined
  if (encodings > 1 || httpVersion !== '1.1') return malformed
  if (countOf(rawHeaders, 'content-length') > 0) return malformed
  return fieldOf(rawHeaders, 'transfer-encoding')?.toLowerCase() === 'chunked'
    ? undefined
    : malformed
}

function framingOf({ headers }: IncomingMessage): Framing {
  if (headers['transfer-encoding'] !== undefined) return { kind: 'chunked' }
  const length = headers['content-length']
  return length === undefined || length === '0' ? { kind: 'none' } : { kind: 'length', length }
}

function refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  if (response.headersSent) return void response.destroy()
  const framing = framingOf(request)
  const isShort = framing.kind === 'length' && Number(framing.length) <= drainable
  const keeps = framing.kind === 'none' || (isShort && request.headers.expect === undefined)
  const body = `${refusal.text}\n`
  response.writeHead(refusal.status, {
    ...refusal.headers,
    'content-type': 'text/plain',
    'content-length': body.length,
    ...(keeps ? {} : { connection: 'close' }),
  })
  response.end(body)
  request.resume()
}

interface Back {
  readonly incoming: IncomingMessage
  readonly passage: Passage
  readonly peer: SpiffeId | undefined
}

function passBack(core: Part, { incoming, passage, peer }: Back, response: ServerResponse): void {
  const headers = passingResponse(incoming.rawHeaders, core)
  if (peer !== undefined) headers.push(core.identityHeader, peer)
  headers.push(...passage.downstream)
  if (passage.isLast()) headers.push('connection', 'close')
  response.writeHead(incoming.statusCode ?? 502, headers)
  incoming.on('error', () => response.destroy())
  incoming.pipe(response)
}

function pass(
  core: Part,
  request: IncomingMessage,
  response: ServerResponse,
  passage: Passage,
): void {
  const { method = '' } = request
  const host = hostOf(request)
  const framing = framingOf(request)
  const body = bodyOf(request, { framing, onward: passage.onward })
  const outgoing = {
    ...{ method, path: passage.path, framing, body, stall: core.limits.stall },
    headers: [
      ...['host', host, ...passingRequest(passage.headers, core, passage.drops)],
      ...passage.added,
    ],
  }
  const done = passage.begin(() => response.destroy())
  if (request.headers.expect !== undefined) response.writeContinue()
  const running = startExchange<Route, IncomingMessage>({
    ...{ core, body, onward: passage.onward, asking: { method, isGrpc: false } },
    send: (route, told) => forward(route, outgoing, told),
    deliver(incoming, route) {
      const peer = route.peerOf(incoming.socket)
      passBack(core, { incoming, passage, peer }, response)
    },
    refuse: (refusal) => refuse(request, response, refusal),
    cut: () => void response.destroy(),
  })
  response.once('close', () => {
    done()
    running.end(response.writableFinished)
  })
}

function isWebsocket({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket'
}

const reasons: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
}

function hangUp(socket: Duplex, status: string): void {
  if (!socket.writable) return void socket.destroy()
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`, () =>
    socket.destroy(),
  )
}

/** A server for sockets that are handed to it by `emit('connection')`, or that listens itself. */
export function http1Server(core: Part, doors: Doors): Server {
  const { limits } = core
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.requestHeaders,
    requestTimeout: 0,
    keepAliveTimeout: limits.idle,
    connectionsCheckingInterval: Math.min(1000, limits.requestHeaders),
    noDelay: true,
    shouldUpgradeCallback: isWebsocket,
  })
  // 0 = none are cut off silently; problemOf() counts them
  server.maxHeadersCount = 0
  // the responses under way: between or inside them an error cannot be told any more
  const open = new WeakMap<Duplex, Set<ServerResponse>>()

  function serve(request: IncomingMessage, response: ServerResponse): void {
    const responses = open.get(request.socket) ?? new Set()
    open.set(request.socket, responses.add(response))
    response.once('close', () => responses.delete(response))
    const { method = '', url: target = '', rawHeaders: headers } = request
    const host = fieldOf(headers, 'host')
    settle(
      () =>
        problemOf(request, limits.headers) ??
        doors(request.socket)?.open({ method, target, host, headers }),
      (answer) => {
        // whoever left while it was decided gets nothing, and asks the workload for nothing
        if (answer === undefined || request.socket.destroyed) request.socket.destroy()
        else if (isRefusal(answer)) refuse(request, response, answer)
        else pass(core, request, response, answer)
      },
      (error) => {
        core.log.warn({ err: error }, 'request ended')
        request.socket.destroy()
      },
    )
  }

  server.on('request', serve)
  server.on('checkContinue', serve)
  server.on('connect', (_, socket) => hangUp(socket, '400 Bad Request'))
  server.on('upgrade', (request, socket, head) => {
    const problem = problemOf(request, limits.headers)
    if (problem === undefined) passUpgrade(core, { request, socket, head }, doors)
    else hangUp(socket, `${problem.status} Bad Request`)
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const [first, ...others] = open.get(socket) ?? []
    if (others.length > 0 || first?.headersSent) socket.destroy()
    else hangUp(socket, reasons[error.code ?? ''] ?? '400 Bad Request')
  })
  return server
}

// HTTP/2 as it comes in: the stream API alone, since the compatibility layer answers `wantTrailers`
// by itself. Requests go on by HTTP/1.1, gRPC by HTTP/2.

import type { IncomingMessage } from 'node:http'
import { constants, createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2'
import { fieldOf } from '../policies/attributes/fields.ts'
import { type Http2Request, readHttp2 } from '../policies/attributes/http2.ts'
import type { Core } from './core.ts'
import {
  type Asked,
  type Doors,
  isRefusal,
  type Passage,
  type Refusal,
  settle,
  unreachable,
} from './door.ts'
import { type Framing, forward } from './forward.ts'
import { grpcRefusal, isGrpc, passGrpc } from './grpc.ts'
import { passingRequest, passingResponse } from './headers.ts'

const malformed: Refusal = { status: 400, text: 'bad request' }

/** A request that was read, and whether a body follows. */
export interface Incoming extends Http2Request {
  readonly hasBody: boolean
}

function incomingOf(
  stream: ServerHttp2Stream,
  raw: readonly string[],
  mostHeaders: number,
): Incoming | Refusal {
  if (raw.length / 2 > mostHeaders) return { status: 431, text: 'too many header fields' }
  const read = readHttp2(raw)
  return read === undefined ? malformed : { ...read, hasBody: !stream.endAfterHeaders }
}

function framingOf({ raw, hasBody }: Incoming): Framing {
  if (!hasBody) return { kind: 'none' }
  const length = fieldOf(raw, 'content-length')
  return length === undefined ? { kind: 'chunked' } : { kind: 'length', length }
}

/** Cookies may come in several fields, which HTTP/1.1 wants as one (RFC 9113 §8.2.3). */
function withOneCookie(headers: readonly string[]): string[] {
  const rest: string[] = []
  const cookies: string[] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const [name = '', value = ''] = headers.slice(i, i + 2)
    if (name === 'cookie') cookies.push(value)
    else rest.push(name, value)
  }
  return cookies.length === 0 ? rest : [...rest, 'cookie', cookies.join('; ')]
}

function refuse(stream: ServerHttp2Stream, { status, text, headers }: Refusal): void {
  if (stream.headersSent || stream.destroyed) {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    return
  }
  stream.respond({ ...headers, ':status': status, 'content-type': 'text/plain' })
  // a body that nobody will read is not waited for (RFC 9113 §8.1)
  stream.end(`${text}\n`, () => stream.close(constants.NGHTTP2_NO_ERROR))
}

function passBack(
  core: Core,
  { incoming, passage }: { readonly incoming: IncomingMessage; readonly passage: Passage },
  stream: ServerHttp2Stream,
): void {
  if (stream.destroyed) return void incoming.destroy()
  const headers: Record<string, string | string[] | number> = {
    ':status': incoming.statusCode ?? 502,
  }
  const raw = [...passingResponse(incoming.rawHeaders, core), ...passage.downstream]
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const [name = '', value = ''] = raw.slice(i, i + 2)
    const key = name.toLowerCase()
    const before = headers[key]
    headers[key] = before === undefined ? value : [before, value].flat().map(String)
  }
  const peer = passage.route.peerOf(incoming.socket)
  if (peer !== undefined) headers[core.identityHeader] = peer
  stream.respond(headers)
  incoming.on('error', () => stream.close(constants.NGHTTP2_INTERNAL_ERROR))
  incoming.pipe(stream)
}

function pass(core: Core, stream: ServerHttp2Stream, request: Incoming, passage: Passage): void {
  const done = passage.begin(() => stream.close(constants.NGHTTP2_CANCEL))
  const sent = forward(
    {
      route: passage.route,
      method: request.method,
      path: passage.path,
      headers: [
        'host',
        request.authority,
        ...withOneCookie(passingRequest(passage.headers, core, passage.drops)),
        ...passage.added,
      ],
      framing: framingOf(request),
      body: stream,
    },
    {
      response(incoming) {
        try {
          passBack(core, { incoming, passage }, stream)
        } catch (error) {
          core.log.warn({ err: error }, 'a response that HTTP/2 cannot carry')
          incoming.destroy()
          refuse(stream, unreachable)
        }
      },
      failed(error) {
        core.tally.failed()
        core.log.warn({ err: error, port: passage.route.port }, 'request failed')
        refuse(stream, unreachable)
      },
    },
  )
  stream.once('close', () => {
    done()
    if (!stream.writableFinished) sent.abort()
  })
}

const askedOf = ({ method, target, authority, raw }: Incoming): Asked => ({
  ...{ method, target, host: authority },
  headers: raw,
})

function serve(core: Core, stream: ServerHttp2Stream, raw: readonly string[], doors: Doors): void {
  stream.on('error', (error) => core.log.debug({ err: error }, 'stream failed'))
  const { session } = stream
  const request = incomingOf(stream, raw, core.limits.headers)
  const decline = isGrpc(raw) ? grpcRefusal : refuse
  settle(
    () => session && ('status' in request ? request : doors(session)?.open(askedOf(request))),
    (answer) => {
      if (answer === undefined) session?.destroy()
      // a stream that was closed while it was decided
      else if (stream.destroyed || stream.closed) return
      else if (isRefusal(answer)) decline(stream, answer)
      else if (!('status' in request)) {
        const goOn = answer.overHttp2 || isGrpc(raw) ? passGrpc : pass
        goOn(core, stream, request, answer)
      }
    },
    (error) => {
      core.log.warn({ err: error }, 'request ended')
      session?.destroy()
    },
  )
}

/** A server for sockets that are handed to it by `emit('connection')`. */
export function http2Server(core: Core, doors: Doors): Http2Server {
  const { limits } = core
  const server = createServer({
    settings: {
      maxConcurrentStreams: limits.streams,
      maxHeaderListSize: limits.headerBytes,
      enableConnectProtocol: false,
    },
    maxHeaderListPairs: limits.headers + 4,
  })
  server.on('stream', (stream, _headers, _flags, raw) => serve(core, stream, raw, doors))
  server.on('sessionError', (error) => core.log.debug({ err: error }, 'session failed'))
  server.on('session', (session) => {
    let open = 0
    session.on('stream', (stream) => {
      open++
      stream.once('close', () => open--)
    })
    session.setTimeout(limits.idle, () => {
      if (open === 0) session.close()
    })
  })
  return server
}

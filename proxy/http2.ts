// HTTP/2 as it comes in: the stream API alone, since the compatibility layer answers `wantTrailers`
// by itself. Requests go on by HTTP/1.1, gRPC by HTTP/2.
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2'
import { readHttp2 } from '../policies/attributes/http2.ts'
import type { Core } from './core.ts'
import { type Asked, type Doors, isRefusal, type Refusal, settle } from './door.ts'
import { passByHttp2 } from './http2-onward.ts'
import { isGrpc, refuseStream } from './http2-refusal.ts'
import { type Incoming, passByHttp1 } from './http2-to-http1.ts'
import type { Limits } from './limits.ts'

const malformed: Refusal = { status: 400, text: 'bad request' }

/** As SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 §6.5.2): Node announces the limit and leaves it at that. */
function sizeOf(raw: readonly string[]): number {
  return raw.reduce((sum, text) => sum + text.length, 16 * raw.length)
}

function incomingOf(
  stream: ServerHttp2Stream,
  raw: readonly string[],
  limits: Limits,
): Incoming | Refusal {
  if (raw.length / 2 > limits.headers) return { status: 431, text: 'too many header fields' }
  if (sizeOf(raw) > limits.headerBytes) return { status: 431, text: 'header fields too large' }
  const read = readHttp2(raw)
  return read === undefined ? malformed : { ...read, hasBody: !stream.endAfterHeaders }
}

const askedOf = ({ method, target, authority, raw }: Incoming): Asked => ({
  ...{ method, target, host: authority },
  headers: raw,
})

function serve(core: Core, stream: ServerHttp2Stream, raw: readonly string[], doors: Doors): void {
  stream.on('error', (error) => core.log.debug({ err: error }, 'stream failed'))
  const { session } = stream
  const request = incomingOf(stream, raw, core.limits)
  settle(
    () => session && ('status' in request ? request : doors(session)?.open(askedOf(request))),
    (answer) => {
      if (answer === undefined) session?.destroy()
      // a stream that was closed while it was decided
      else if (stream.destroyed || stream.closed) return
      else if (isRefusal(answer)) refuseStream(stream, raw, answer)
      else if (!('status' in request)) {
        const goOn = answer.overHttp2 || isGrpc(raw) ? passByHttp2 : passByHttp1
        goOn(core, { stream, request, passage: answer })
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

// gRPC passed on by HTTP/2, both ways streaming, trailers kept.
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2'
import { fieldOf } from '../policies/attributes/fields.ts'
import type { Core } from './core.ts'
import type { Passage, Refusal } from './door.ts'
import { isIdentity, type Named, passingRequest } from './headers.ts'
import type { Incoming } from './http2.ts'

export function isGrpc(raw: readonly string[]): boolean {
  return /^application\/grpc(?:[+;]|$)/.test(fieldOf(raw, 'content-type') ?? '')
}

// google.rpc.Code by HTTP status; others are UNKNOWN (2)
const codes: Readonly<Record<number, number>> = {
  400: 3,
  401: 16,
  403: 7,
  429: 8,
  431: 8,
  502: 14,
}

/** What gRPC lets pass unescaped in grpc-message: printable ASCII but the percent sign. */
function escaped(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]/g, encodeURIComponent)
}

/** HTTP 200 with trailers only, as a gRPC server refuses. */
export function grpcRefusal(stream: ServerHttp2Stream, { status, text, headers }: Refusal): void {
  if (stream.headersSent || stream.destroyed) {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    return
  }
  stream.respond(
    {
      ...headers,
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-status': String(codes[status] ?? 2),
      'grpc-message': escaped(text),
    },
    { endStream: true },
  )
  stream.resume()
  if (!stream.endAfterHeaders) stream.close(constants.NGHTTP2_NO_ERROR)
}

function add(headers: OutgoingHttpHeaders, name: string, value: string): void {
  const before = headers[name]
  headers[name] = before === undefined ? value : [before, value].flat().map(String)
}

function requestHeaders(core: Core, request: Incoming, passage: Passage): OutgoingHttpHeaders {
  const { path, added, headers: fields } = passage
  const headers: OutgoingHttpHeaders = {
    ':method': request.method,
    ':path': path,
    ':scheme': 'http',
    ':authority': request.authority,
    te: 'trailers',
  }
  const raw = [...passingRequest(fields, core, passage.drops), ...added]
  for (let i = 0; i + 1 < raw.length; i += 2) add(headers, raw[i] ?? '', raw[i + 1] ?? '')
  const length = fieldOf(request.raw, 'content-length')
  if (length !== undefined) headers['content-length'] = length
  return headers
}

/** Response fields or trailers: everything but pseudo fields and what only we may say. */
function passing(headers: IncomingHttpHeaders, named: Named): OutgoingHttpHeaders {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => !name.startsWith(':') && !isIdentity(name, named)),
  )
}

const endStream = constants.NGHTTP2_FLAG_END_STREAM

function join(
  core: Core,
  {
    stream,
    upstream,
  }: { readonly stream: ServerHttp2Stream; readonly upstream: ClientHttp2Stream },
  passage: Passage,
): void {
  const trailers = Promise.withResolvers<OutgoingHttpHeaders>()
  upstream.once('response', (headers, flags) => {
    const peer = passage.route.peerOf(upstream.session ?? null)
    const ends = (flags & endStream) !== 0
    if (stream.destroyed) return
    const answer: OutgoingHttpHeaders = {
      ...passing(headers, core),
      ':status': headers[':status'] ?? 200,
      ...(peer === undefined ? {} : { [core.identityHeader]: peer }),
    }
    const { downstream } = passage
    for (let i = 0; i + 1 < downstream.length; i += 2) {
      add(answer, downstream[i]?.toLowerCase() ?? '', downstream[i + 1] ?? '')
    }
    stream.respond(answer, { endStream: ends, waitForTrailers: !ends })
    if (!ends) upstream.pipe(stream)
  })
  upstream.once('trailers', (fields) => trailers.resolve(passing(fields, core)))
  upstream.once('close', () => {
    trailers.resolve({})
    if (upstream.rstCode !== 0) stream.close(upstream.rstCode)
  })
  stream.once('wantTrailers', async () => {
    const fields = await trailers.promise
    if (!stream.destroyed) stream.sendTrailers(fields)
  })
}

async function open(route: Passage['route']): Promise<ClientHttp2Session | undefined> {
  try {
    return await route.session()
  } catch {
    return undefined
  }
}

const unavailable: Refusal = { status: 502, text: 'the other side cannot be reached' }

export async function passGrpc(
  core: Core,
  stream: ServerHttp2Stream,
  request: Incoming,
  passage: Passage,
): Promise<void> {
  const done = passage.begin(() => stream.close(constants.NGHTTP2_CANCEL))
  stream.once('close', done)
  const fail = (error?: unknown) => {
    core.tally.failed()
    core.log.warn({ err: error, port: passage.route.port }, 'gRPC call failed')
    grpcRefusal(stream, unavailable)
  }
  const session = await open(passage.route)
  if (stream.destroyed) return
  if (session === undefined) return fail()
  try {
    const upstream = session.request(requestHeaders(core, request, passage), {
      endStream: !request.hasBody,
    })
    upstream.on('error', (error) => {
      if (!stream.headersSent && !stream.destroyed) fail(error)
      else core.log.debug({ err: error }, 'gRPC call ended early')
    })
    stream.once('close', () => {
      if (!upstream.closed) upstream.close(constants.NGHTTP2_CANCEL)
    })
    join(core, { stream, upstream }, passage)
    if (request.hasBody) stream.pipe(upstream)
  } catch (error) {
    fail(error)
  }
}

// A request that came by HTTP/2 and goes on by it: gRPC, and all of a listener of gRPC. Both ways streaming, trailers
// kept.
import {
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2'
import { fieldOf } from '../policies/attributes/fields.ts'
import { createBody, noBody } from './body.ts'
import type { Core } from './core.ts'
import type { Passage } from './door.ts'
import { startExchange } from './exchange.ts'
import { forwardHttp2, type Http2Answer } from './forward-http2.ts'
import { isIdentity, type Named, passingRequest } from './headers.ts'
import { cutStream, isWhole } from './http2-cut.ts'
import { isGrpc, refuseStream } from './http2-refusal.ts'
import type { Incoming, Onto } from './http2-to-http1.ts'
import type { Route } from './onward.ts'

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
  }
  // gRPC servers ask for it, to see proxies that lose trailers
  if (isGrpc(request.raw) || fieldOf(request.raw, 'te') !== undefined) headers.te = 'trailers'
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

const cancel = constants.NGHTTP2_CANCEL

interface Back extends Http2Answer {
  readonly passage: Passage
  readonly route: Route
}

function passBack(core: Core, back: Back, stream: ServerHttp2Stream): void {
  const { upstream, headers, isAll, passage, route } = back
  const { downstream } = passage
  const trailers = Promise.withResolvers<OutgoingHttpHeaders>()
  upstream.once('trailers', (fields) => trailers.resolve(passing(fields, core)))
  upstream.once('close', () => {
    trailers.resolve({})
    const { rstCode = 0 } = upstream
    if (rstCode !== 0) cutStream(stream, rstCode === cancel ? 'cancelled' : 'broken')
  })
  if (stream.destroyed) return
  const peer = route.peerOf(upstream.session ?? null)
  const answer: OutgoingHttpHeaders = {
    ...passing(headers, core),
    ':status': headers[':status'] ?? 200,
    ...(peer === undefined ? {} : { [core.identityHeader]: peer }),
  }
  for (let i = 0; i + 1 < downstream.length; i += 2) {
    add(answer, downstream[i]?.toLowerCase() ?? '', downstream[i + 1] ?? '')
  }
  stream.once('wantTrailers', async () => {
    const fields = await trailers.promise
    if (!stream.destroyed) stream.sendTrailers(fields)
  })
  stream.respond(answer, { endStream: isAll, waitForTrailers: !isAll })
  if (isAll) return
  upstream.pipe(stream, { end: false })
  upstream.once('end', () => {
    if (isWhole(upstream)) stream.end()
  })
}

export function passByHttp2(core: Core, { stream, request, passage }: Onto): void {
  const { method, raw, hasBody } = request
  const { onward } = passage
  const cut = () => cutStream(stream, 'cancelled')
  const done = passage.begin(cut)
  const headers = requestHeaders(core, request, passage)
  const body = hasBody ? createBody(stream, { keeps: onward.again !== undefined }) : noBody
  const outgoing = { headers, body: hasBody ? body : undefined, stall: core.limits.stall }
  const running = startExchange<Route, Http2Answer>({
    ...{ core, body, onward, asking: { method, isGrpc: isGrpc(raw) } },
    send: (route, told) => forwardHttp2(route, outgoing, told),
    deliver: (answer, route) => passBack(core, { ...answer, passage, route }, stream),
    refuse: (refusal) => refuseStream(stream, raw, refusal),
    cut,
  })
  stream.once('close', () => {
    done()
    // a stream that was closed by us or by the caller may still be open onwards
    running.end(false)
  })
}

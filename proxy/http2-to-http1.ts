// A request that came by HTTP/2 and goes on by HTTP/1.1.
import type { IncomingMessage } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { fieldOf } from '../policies/attributes/fields.ts'
import type { Http2Request } from '../policies/attributes/http2.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Core } from './core.ts'
import { type Passage, unreachable } from './door.ts'
import { startExchange } from './exchange.ts'
import { bodyOf, type Framing, forward } from './forward.ts'
import { passingRequest, passingResponse } from './headers.ts'
import { cutStream } from './http2-cut.ts'
import { refuseStream } from './http2-refusal.ts'
import type { Route } from './onward.ts'

/** A request that was read, and whether a body follows. */
export interface Incoming extends Http2Request {
  readonly hasBody: boolean
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

interface Back {
  readonly incoming: IncomingMessage
  readonly passage: Passage
  readonly peer: SpiffeId | undefined
}

/** Throws for what HTTP/2 cannot carry. */
function passBack(core: Core, { incoming, passage, peer }: Back, stream: ServerHttp2Stream): void {
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
  if (peer !== undefined) headers[core.identityHeader] = peer
  stream.respond(headers)
  incoming.on('error', () => cutStream(stream, 'broken'))
  incoming.pipe(stream)
}

function outgoingOf(core: Core, { request, stream, passage }: Onto) {
  const framing = framingOf(request)
  return {
    ...{ method: request.method, path: passage.path, framing, stall: core.limits.stall },
    headers: [
      ...['host', request.authority],
      ...withOneCookie(passingRequest(passage.headers, core, passage.drops)),
      ...passage.added,
    ],
    body: bodyOf(stream, { framing, onward: passage.onward }),
  }
}

export interface Onto {
  readonly stream: ServerHttp2Stream
  readonly request: Incoming
  readonly passage: Passage
}

export function passByHttp1(core: Core, onto: Onto): void {
  const { stream, request, passage } = onto
  const { method, raw } = request
  // an answer that has begun would look whole to a client that takes CANCEL for an end
  const cut = () => cutStream(stream, stream.headersSent ? 'broken' : 'cancelled')
  const done = passage.begin(cut)
  const outgoing = outgoingOf(core, onto)
  const { body } = outgoing
  const running = startExchange<Route, IncomingMessage>({
    ...{ core, body, onward: passage.onward, asking: { method, isGrpc: false } },
    send: (route, told) => forward(route, outgoing, told),
    deliver(incoming, route) {
      const peer = route.peerOf(incoming.socket)
      try {
        passBack(core, { incoming, passage, peer }, stream)
      } catch (error) {
        core.log.warn({ err: error }, 'a response that HTTP/2 cannot carry')
        incoming.destroy()
        refuseStream(stream, raw, unreachable)
      }
    },
    refuse: (refusal) => refuseStream(stream, raw, refusal),
    cut,
  })
  stream.once('close', () => {
    done()
    // a stream that its caller has reset counts as finished for Node
    running.end(stream.writableFinished && stream.rstCode === 0)
  })
}

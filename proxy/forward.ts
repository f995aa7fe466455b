// Sends a request on by HTTP/1.1 and hands back the response; once more on a fresh connection when a
// kept one had been closed meanwhile and asking again does no harm.
import { type Agent, type ClientRequest, type IncomingMessage, request as send } from 'node:http'
import type { Readable } from 'node:stream'
import { failureOf, type Sent, type Told } from './attempt.ts'
import { type Body, createBody, noBody } from './body.ts'
import type { Onward, Route } from './onward.ts'
import { idempotent } from './retry.ts'

/** How the body is delimited, as our own parser understood it. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'length'; readonly length: string }

export interface Outgoing {
  readonly method: string
  readonly path: string
  /** without framing */
  readonly headers: readonly string[]
  readonly framing: Framing
  readonly body: Body
  /** milliseconds that an answer which has begun may be silent; 0 is for ever */
  readonly stall: number
}

const bodyless: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'DELETE'])

/** The fields that say where the body ends. */
export function framingHeaders(method: string, framing: Framing): readonly string[] {
  switch (framing.kind) {
    case 'chunked':
      return ['transfer-encoding', 'chunked']
    case 'length':
      return ['content-length', framing.length]
    case 'none':
      return bodyless.has(method) ? [] : ['content-length', '0']
  }
}

/** Kept while it is small where a request may be asked again. */
export function bodyOf(
  source: Readable,
  { framing, onward }: { readonly framing: Framing; readonly onward: Onward<unknown> },
): Body {
  if (framing.kind === 'none') return noBody
  return createBody(source, { keeps: onward.again !== undefined })
}

// so much of an answer that nobody wants is read, to keep its connection
const drainable = 64 * 1024

/** Whether a connection is there already; an agent of a route knows one place only. */
function hasUnused({ freeSockets }: Agent): boolean {
  for (const _ in freeSockets) return true
  return false
}

/** An answer that is not passed on. */
function leave(request: ClientRequest, response: IncomingMessage | undefined): void {
  const length = Number(response?.headers['content-length'] ?? Number.POSITIVE_INFINITY)
  if (response !== undefined && length <= drainable && request.writableEnded) response.resume()
  else request.destroy()
}

/** Throws for what cannot be written as a request. */
export function forward(
  { host, port, pooled, single }: Route,
  outgoing: Outgoing,
  told: Told<IncomingMessage>,
): Sent {
  const { method, path, framing, body, stall } = outgoing
  const headers = [...outgoing.headers, ...framingHeaders(method, framing)]
  const mayRepeat = framing.kind === 'none' && idempotent.has(method)
  let request = start(pooled)
  let response: IncomingMessage | undefined
  let isOver = false

  function start(agent: Agent): ClientRequest {
    const started = send({ agent, host, port, method, path, headers, setHost: false })
    started.once('response', (its) => {
      response = its
      its.on('error', () => {})
      if (stall > 0) started.setTimeout(stall, () => started.destroy())
      told.answered({ status: its.statusCode ?? 502 }, its)
    })
    started.on('error', (error) => {
      if (response !== undefined || isOver) return
      if (mayRepeat && agent === pooled && started.reusedSocket) {
        request = start(single)
        return
      }
      isOver = true
      told.failed(failureOf(error, started.socket !== null))
    })
    if (framing.kind === 'none') started.end()
    // nothing that may go elsewhere is taken from the caller before there is somebody to send it to
    else if (body.isKept && !hasUnused(agent)) started.once('socket', () => body.sendTo(started))
    else body.sendTo(started)
    return started
  }

  return {
    abort() {
      isOver = true
      request.destroy()
    },
    discard() {
      isOver = true
      leave(request, response)
    },
  }
}

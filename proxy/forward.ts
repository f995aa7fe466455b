// Sends a request on by HTTP/1.1 and hands back the response; once more on a fresh connection when a
// kept one had been closed meanwhile and asking again does no harm.
import { type Agent, type ClientRequest, type IncomingMessage, request as send } from 'node:http'
import type { Readable } from 'node:stream'
import type { Route } from './door.ts'

/** How the body is delimited, as our own parser understood it. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'length'; readonly length: string }

export interface Outgoing {
  readonly route: Route
  readonly method: string
  readonly path: string
  /** without framing */
  readonly headers: readonly string[]
  readonly framing: Framing
  readonly body: Readable
}

export interface Outcome {
  response(response: IncomingMessage): void
  /** before any response */
  failed(error: Error): void
}

export interface Forwarded {
  abort(): void
}

const idempotent: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'OPTIONS',
  'TRACE',
  'PUT',
  'DELETE',
])
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

/** Throws for what cannot be written as a request. */
export function forward(outgoing: Outgoing, outcome: Outcome): Forwarded {
  const { route, method, path, framing, body } = outgoing
  const headers = [...outgoing.headers, ...framingHeaders(method, framing)]
  const mayRepeat = framing.kind === 'none' && idempotent.has(method)
  let request = start(route.pooled)
  let isOver = false

  function start(agent: Agent): ClientRequest {
    const { host, port } = route
    const started = send({ agent, host, port, method, path, headers, setHost: false })
    let answered = false
    started.once('response', (response) => {
      answered = true
      outcome.response(response)
    })
    started.on('error', (error) => {
      if (answered || isOver) return
      if (mayRepeat && agent === route.pooled && started.reusedSocket) {
        request = start(route.single)
        return
      }
      isOver = true
      outcome.failed(error)
    })
    if (framing.kind === 'none') started.end()
    else body.pipe(started)
    return started
  }

  return {
    abort() {
      isOver = true
      request.destroy()
    },
  }
}

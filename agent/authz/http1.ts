// Questions over HTTP/1.1, of proxies that ask by a request of their own: nginx, HAProxy, Caddy.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { explain, hasCode, meaningOf } from '../../spiffe/errors.ts'
import { fieldsOf } from './check-response.ts'
import { questionIn } from './http1-question.ts'
import { type Judging, judge, type Verdict } from './judge.ts'
import { createOpenSockets } from './open-sockets.ts'
import type { Question } from './question.ts'
import type { Standing } from './standing.ts'
import type { Tongue } from './tongues.ts'
import type { Visitor } from './visitor.ts'

/** names of fields that the proxy has to take off the request */
const dropHeader = 'x-castellan-drop'
const dropParametersHeader = 'x-castellan-drop-parameters'

const headerBytes = 64 * 1024
/** milliseconds: nginx keeps connections for a minute, and has to be the one that ends them */
const keepAlive = 90_000
const headersTimeout = 10_000

function reply(
  response: ServerResponse,
  status: number,
  fields: readonly string[],
  text: string,
): void {
  const length = ['content-length', String(Buffer.byteLength(text))]
  response.writeHead(status, [...fields, 'content-type', 'text/plain; charset=utf-8', ...length])
  response.end(text)
}

function answer(response: ServerResponse, verdict: Verdict): void {
  if (verdict.kind === 'stopped') {
    reply(response, verdict.status, fieldsOf(verdict), `${verdict.text}\n`)
    return
  }
  const { sets, drops, dropsParameters } = verdict
  const parameters =
    dropsParameters.length === 0 ? [] : [dropParametersHeader, dropsParameters.join(', ')]
  reply(response, 200, [...sets, dropHeader, drops.join(', '), ...parameters], '')
}

/** The proxy is told what is wrong with its question; it is at this node, and no client of its own. */
function refuse(response: ServerResponse, error: unknown): void {
  const status = hasCode(error) ? meaningOf(error.code).http : 500
  const text = hasCode(error) ? explain(error) : 'internal error'
  if (!response.headersSent) reply(response, status, [], `${text}\n`)
}

/** For sockets that are handed to it. */
function createHandedServer(): Server {
  const server = createServer({
    ...{ keepAliveTimeout: keepAlive, headersTimeout, requestTimeout: headersTimeout },
    ...{ maxHeaderSize: headerBytes, noDelay: true },
  })
  // 0 = none are cut off silently: a policy could have asked for the one that is missing
  server.maxHeadersCount = 0
  // it never listens itself, but its timers for slow headers start with this event
  server.emit('listening')
  return server
}

export function createHttp1(judging: Judging): Tongue {
  const open = createOpenSockets<Visitor>(judging.clock)
  const server = createHandedServer()
  let isDraining = false

  async function settle(response: ServerResponse, standing: Promise<Standing>, question: Question) {
    try {
      answer(response, judge(judging, await standing, question))
    } catch (error) {
      refuse(response, error)
    }
  }

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const visitor = open.all.get(request.socket)
    if (visitor === undefined) return void request.socket.destroy()
    if (isDraining) response.setHeader('connection', 'close')
    // nothing in it is decided about
    request.resume()
    try {
      const question = questionIn(request)
      const standing = visitor.standing()
      if (standing instanceof Promise) void settle(response, standing, question)
      else answer(response, judge(judging, standing, question))
    } catch (error) {
      refuse(response, error)
    }
  })
  return {
    serve(socket, visitor) {
      open.add(socket, visitor)
      server.emit('connection', socket)
    },
    get connections() {
      return open.all.size
    },
    async drain() {
      isDraining = true
      server.closeIdleConnections()
      await open.empty()
      server.close()
    },
  }
}

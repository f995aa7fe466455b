// Calls as a local program makes them: plain HTTP/1.1, and gRPC as far as the wire goes.
import { type Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'
import {
  type ClientHttp2Session,
  connect,
  type IncomingHttpHeaders as Http2Headers,
} from 'node:http2'

export interface Asked {
  readonly method?: string
  readonly path?: string
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly agent?: Agent
}

export interface Answer {
  readonly status: number | undefined
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export async function ask(port: number, asked: Asked = {}): Promise<Answer> {
  const { method = 'GET', path = '/ok', body = '', headers = {}, agent } = asked
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const options = { host: '127.0.0.1', port, method, path, headers, ...(agent && { agent }) }
  const sent = request(options, resolve)
  sent.on('error', reject)
  sent.end(body)
  const response = await promise
  let text = ''
  for await (const part of response) text += part
  return { status: response.statusCode, headers: response.headers, body: text }
}

export interface Called {
  readonly headers: Http2Headers
  readonly trailers: Http2Headers
  readonly body: string
  /** it has come to its end */
  readonly isWhole: boolean
  readonly rstCode: number | undefined
}

export interface Caller extends Disposable {
  readonly session: ClientHttp2Session
  call(headers?: Http2Headers, body?: string): Promise<Called>
}

/** HTTP/2 with prior knowledge; calls are gRPC when nothing else is said. */
export function openCaller(port: number): Caller {
  const session = connect(`http://127.0.0.1:${port}`)
  session.on('error', () => {})
  return {
    session,
    async call(headers = {}, text = 'message') {
      const stream = session.request(
        {
          ...{ ':path': '/shop.Echo/Call', ':method': 'POST', 'content-type': 'application/grpc' },
          ...headers,
        },
        { endStream: text === '' },
      )
      stream.on('error', () => {})
      let [head, trailers, body]: [Http2Headers, Http2Headers, string] = [{}, {}, '']
      let isWhole = false
      stream.on('response', (its) => {
        head = its
      })
      stream.on('trailers', (its) => {
        trailers = its
      })
      stream.on('data', (part) => {
        body += part
      })
      if (text !== '') stream.end(text)
      stream.on('end', () => {
        isWhole = true
      })
      await new Promise((resolve) => stream.once('close', resolve))
      return { headers: head, trailers, body, isWhole, rstCode: stream.rstCode }
    },
    [Symbol.dispose]: () => session.destroy(),
  }
}

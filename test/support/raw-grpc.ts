// One gRPC call made by hand on node:http2, for what no client would send.
import { once } from 'node:events'
import http2, { type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'

export interface RawAnswer {
  readonly headers: Readonly<Record<string, unknown>>
  readonly trailers: Readonly<Record<string, unknown>>
  readonly body: Buffer
}

export async function rawSession(address: string): Promise<ClientHttp2Session> {
  // Node's own limits on a client are not what is tested
  const session = http2.connect(`http://${address}`, { maxSessionMemory: 1000 })
  session.on('error', () => {})
  await once(session, 'connect')
  return session
}

export const rawHeaders = {
  ':method': 'POST',
  ':path': '/castellan.test.v1.Echo/Unary',
  'content-type': 'application/grpc',
  te: 'trailers',
} as const

/** Sends `body` (undefined leaves the request open) and waits until the stream is closed. */
export async function rawCall(
  session: ClientHttp2Session,
  body: Uint8Array | undefined,
  headers: OutgoingHttpHeaders = {},
): Promise<RawAnswer> {
  const stream = session.request({ ...rawHeaders, ...headers })
  let answer = {}
  let trailers = {}
  stream.on('response', (received) => (answer = received))
  stream.on('trailers', (received) => (trailers = received))
  if (body !== undefined) stream.end(body)
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  if (!stream.destroyed) await once(stream, 'close')
  return { headers: answer, trailers, body: Buffer.concat(chunks) }
}

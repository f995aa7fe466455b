// What a caller by HTTP/2 is told when its request does not go on: gRPC by its own status, others by HTTP's.
import { constants, type ServerHttp2Stream } from 'node:http2'
import { fieldOf } from '../policies/attributes/fields.ts'
import type { Refusal } from './door.ts'
import { cutStream } from './http2-cut.ts'

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
  503: 14,
  504: 4,
}

/** What gRPC lets pass unescaped in grpc-message: printable ASCII but the percent sign. */
function escaped(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]/g, encodeURIComponent)
}

/** HTTP 200 with trailers only, as a gRPC server refuses. */
function refuseGrpc(stream: ServerHttp2Stream, { status, text, headers }: Refusal): void {
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

function refuseHttp(stream: ServerHttp2Stream, { status, text, headers }: Refusal): void {
  stream.respond({ ...headers, ':status': status, 'content-type': 'text/plain' })
  // a body that nobody will read is not waited for (RFC 9113 §8.1)
  stream.end(`${text}\n`, () => stream.close(constants.NGHTTP2_NO_ERROR))
}

/** `raw` are the fields of the request. */
export function refuseStream(
  stream: ServerHttp2Stream,
  raw: readonly string[],
  refusal: Refusal,
): void {
  if (stream.headersSent || stream.destroyed) cutStream(stream, 'broken')
  else if (isGrpc(raw)) refuseGrpc(stream, refusal)
  else refuseHttp(stream, refusal)
}

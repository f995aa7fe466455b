// gRPC on the decision socket: one unary method, `envoy.service.auth.v3.Authorization/Check`, on our own HTTP/2.

import { encodeFrame } from '../../runtime/grpc/frame.ts'
import { okTrailers, responseHeaders, statusOf, trailersOnly } from '../../runtime/grpc/status.ts'
import type { IdentityError } from '../../spiffe/errors.ts'
import { hasCode } from '../../spiffe/errors.ts'
import { encodeBlock, type Field } from './http2/hpack.ts'
import type { Asked } from './http2/requests.ts'
import type { Response } from './http2/responses.ts'

const path = '/envoy.service.auth.v3.Authorization/Check'
const prefix = 5
const nothing = new Uint8Array()
const plain = /^application\/grpc(\+proto)?(;.*)?$/

const fieldsOf = (headers: Readonly<Record<string, string | number>>): Field[] =>
  Object.entries(headers).map(([name, value]) => [name, String(value)])

const headersBlock = encodeBlock(fieldsOf(responseHeaders))
const trailersBlock = encodeBlock(fieldsOf(okTrailers))

/** An encoded message as the whole answer. */
export function responseOf(message: Uint8Array): Response {
  return { headers: headersBlock, body: encodeFrame(message), trailers: trailersBlock }
}

/** An answer of fields alone: a call that went wrong. */
export function failure(error: unknown): Response {
  const headers = encodeBlock(fieldsOf(trailersOnly(statusOf(error))))
  return { headers, body: nothing, trailers: undefined }
}

function status(code: number, message: string): Response {
  const headers = encodeBlock(fieldsOf(trailersOnly({ code, message, details: [] })))
  return { headers, body: nothing, trailers: undefined }
}

const http = (code: number): Response => ({
  headers: encodeBlock([[':status', String(code)]]),
  body: nothing,
  trailers: undefined,
})

const unimplemented = 12
const invalid = 3
const answers = {
  method: http(405),
  content: http(415),
  path: status(unimplemented, 'no such method'),
  tooLarge: status(8, 'request is too large'),
  none: status(unimplemented, 'request has no message, its method takes one'),
  many: status(unimplemented, 'request has more messages than its method takes'),
  compressed: status(unimplemented, 'compressed messages are not supported'),
  flags: status(invalid, 'message has unknown flags'),
  partial: status(invalid, 'request ends inside a message'),
} as const

/** The message in a body, or what is answered instead. */
function messageIn(body: Buffer | undefined): Buffer | Response {
  if (body === undefined) return answers.tooLarge
  if (body.length === 0) return answers.none
  const [flag] = body
  if (flag === 1) return answers.compressed
  if (flag !== 0) return answers.flags
  if (body.length < prefix) return answers.partial
  const length = body.readUInt32BE(1)
  if (body.length < prefix + length) return answers.partial
  return body.length === prefix + length ? body.subarray(prefix) : answers.many
}

/** The message of a call, or why there is none. */
export function messageOf({ method, path: asked, contentType, body }: Asked): Buffer | Response {
  if (method !== 'POST') return answers.method
  if (contentType !== 'application/grpc' && !plain.test(contentType)) return answers.content
  return asked === path ? messageIn(body) : answers.path
}

export const isResponse = (it: Buffer | Response): it is Response => 'headers' in it

/** Whether it is a question that means nothing, rather than bytes that are none. */
export function isMeaningless(error: unknown): error is IdentityError {
  return hasCode(error, 'ERR_BAD_REQUEST') && error.fields.length > 0
}

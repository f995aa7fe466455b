// How a call's outcome is written: the status of an error, and the headers that carry it.
import { create, toBinary } from '@bufbuild/protobuf'
import { type Any, anyPack, durationFromMs } from '@bufbuild/protobuf/wkt'
import { BadRequestSchema, RetryInfoSchema } from '../../proto/gen/google/rpc/error_details_pb.js'
import { StatusSchema } from '../../proto/gen/google/rpc/status_pb.js'
import { hasCode, IdentityError, meaningOf } from '../../spiffe/errors.ts'

export interface Status {
  /** of google.rpc.Code */
  readonly code: number
  readonly message: string
  readonly details: readonly Any[]
}

export type Headers = Record<string, string | number>

export const ok = 0

// Clients bound their header lists (grpc-js and Node at 64 KiB); a status past that would be lost whole.
const longestMessage = 2048
const longestDetails = 24 * 1024

export const responseHeaders: Headers = {
  ':status': 200,
  'content-type': 'application/grpc',
  'grpc-accept-encoding': 'identity',
}
export const okTrailers: Headers = { 'grpc-status': '0' }

function ownDetails(error: IdentityError): Any[] {
  const details: Any[] = []
  if (error.fields.length > 0) {
    const fieldViolations = error.fields.map(({ field, problem }) => ({
      field,
      description: problem,
    }))
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations })))
  }
  if (error.retryAfter !== undefined) {
    const retryDelay = durationFromMs(error.retryAfter)
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })))
  }
  return details
}

/** What is not an IdentityError is told to nobody but the operator: its text may hold anything. */
export function statusOf(
  error: unknown,
  details?: (error: IdentityError) => readonly Any[],
): Status {
  if (!hasCode(error)) {
    return { code: meaningOf('ERR_RUNTIME').grpc, message: 'internal error', details: [] }
  }
  return {
    code: meaningOf(error.code).grpc,
    message: error.message,
    details: [...ownDetails(error), ...(details?.(error) ?? [])],
  }
}

/** Percent-encodes what PROTOCOL-HTTP2 does not allow in grpc-message: all but printable ASCII, and %. */
export function encodeMessage(message: string): string {
  const text = message.length > longestMessage ? `${message.slice(0, longestMessage)}…` : message
  if (/^[ -$&-~]*$/.test(text)) return text
  let encoded = ''
  for (const byte of Buffer.from(text)) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25
    encoded += plain
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return encoded
}

export function trailersOf({ code, message, details }: Status): Headers {
  const trailers: Headers = { 'grpc-status': String(code) }
  if (message !== '') trailers['grpc-message'] = encodeMessage(message)
  if (details.length === 0) return trailers
  const status = create(StatusSchema, { code, message, details: [...details] })
  const bytes = toBinary(StatusSchema, status)
  if (bytes.length <= longestDetails) {
    trailers['grpc-status-details-bin'] = Buffer.from(bytes).toString('base64').replace(/=+$/, '')
  }
  return trailers
}

/** How `trailersOnly` is sent; a date helps no gRPC client. */
export const whole = { endStream: true, sendDate: false } as const

/** The whole answer in one header block, for a call that has sent nothing yet. */
export function trailersOnly(status: Status): Headers {
  return { ...responseHeaders, ...trailersOf(status) }
}

export const wentAway = () => new IdentityError('ERR_CANCELLED', 'the caller went away')
export const tooLate = () =>
  new IdentityError('ERR_DEADLINE', 'the deadline of the call has passed')
export const closing = () => new IdentityError('ERR_UNAVAILABLE', 'the server is closing')

import { fromBinary } from '@bufbuild/protobuf'
import { type Any, anyUnpack } from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  BadRequestSchema,
  RetryInfoSchema,
} from '../../../proto/gen/google/rpc/error_details_pb.js'
import { StatusSchema } from '../../../proto/gen/google/rpc/status_pb.js'
import { encodeMessage, statusOf, trailersOf } from '../../../runtime/grpc/status.ts'
import { IdentityError, meanings } from '../../../spiffe/errors.ts'

test('a message survives the way over, whatever characters it has', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 500 })
  fc.assert(
    fc.property(text, (message) => {
      const encoded = encodeMessage(message)
      expect(encoded).toMatch(/^[ -~]*$/)
      expect(decodeURIComponent(encoded)).toBe(message)
    }),
  )
})

test('a message that would burst the header list is cut', () => {
  expect(encodeMessage('x'.repeat(100_000))).toBe(`${'x'.repeat(2048)}%E2%80%A6`)
})

test.each(Object.entries(meanings))('%s has its status of the table', (code, { grpc }) => {
  const known = Object.keys(meanings).find((name): name is keyof typeof meanings => name === code)
  if (known === undefined) throw new TypeError(code)
  const status = { code: grpc, message: 'no', details: [] }
  expect(statusOf(new IdentityError(known, 'no'))).toEqual(status)
})

test.each([new Error('the password is 1234'), 'text', undefined, null, 7])(
  'what is no IdentityError (%s) is not told to the caller',
  (error) => {
    expect(statusOf(error)).toEqual({ code: 13, message: 'internal error', details: [] })
  },
)

function unpacked(details: readonly Any[]) {
  const [bad, retry] = details
  if (bad === undefined || retry === undefined) throw new TypeError('two details expected')
  return { bad: anyUnpack(bad, BadRequestSchema), retry: anyUnpack(retry, RetryInfoSchema) }
}

test('fields and retryAfter become BadRequest and RetryInfo, in the trailers too', () => {
  const fields = [{ field: 'entries[0].ttl', problem: 'is negative' }]
  const error = new IdentityError('ERR_EXHAUSTED', 'later', { fields, retryAfter: 2500 })
  const trailers = trailersOf(statusOf(error))
  expect(trailers).toMatchObject({ 'grpc-status': '8', 'grpc-message': 'later' })
  const text = String(trailers['grpc-status-details-bin'])
  expect(text).not.toContain('=')
  const status = fromBinary(StatusSchema, Buffer.from(text, 'base64'))
  expect(status).toMatchObject({ code: 8, message: 'later' })
  const { bad, retry } = unpacked(status.details)
  expect(bad?.fieldViolations).toMatchObject([
    { field: 'entries[0].ttl', description: 'is negative' },
  ])
  expect(retry?.retryDelay).toMatchObject({ seconds: 2n, nanos: 500_000_000 })
})

test('details that would burst the header list are left out, the status is not', () => {
  const fields = Array.from({ length: 2000 }, (_, i) => ({ field: `f[${i}]`, problem: 'is wrong' }))
  const trailers = trailersOf(statusOf(new IdentityError('ERR_CONFIG', 'all wrong', { fields })))
  expect(trailers).toEqual({ 'grpc-status': '3', 'grpc-message': 'all wrong' })
})

test("the server's own details follow", () => {
  const error = new IdentityError('ERR_DENIED', 'no')
  const detail = {
    $typeName: 'google.protobuf.Any',
    typeUrl: 't',
    value: new Uint8Array(),
  } as const
  expect(statusOf(error, (seen) => (seen === error ? [detail] : [])).details).toEqual([detail])
})

// What no proxy sends: it is refused, and what comes after it is answered.
import { once } from 'node:events'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { create, toBinary } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { CheckRequestSchema } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { encodeFrame } from '../../../runtime/grpc/frame.ts'
import { makeTestAuthority } from '../../support/mesh.ts'
import { policyText } from '../../support/policy-text.ts'
import { untilClosed } from '../../support/sidecar.ts'
import { rpc } from './asking.ts'
import { bundleMessage, type Deciding, entryOf, payments, startDeciding } from './deciding.ts'

const authority = makeTestAuthority('example.org')
const good = toBinary(CheckRequestSchema, create(CheckRequestSchema, rpc('/ok')))

let deciding: Deciding
let session: ClientHttp2Session
beforeAll(async () => {
  deciding = await startDeciding()
  const { entry, labels } = entryOf(payments)
  const bundle = bundleMessage(authority.bundle)
  deciding.apply({ snapshot: true, bundle, entries: [entry], labels: [labels] })
  deciding.putPolicies(1n, policyText('[{ to: [{ operation: { paths: [/ok] } }] }]'))
})
afterAll(() => deciding[Symbol.asyncDispose]())
beforeEach(async () => {
  session = connectHttp2('http://authz', { createConnection: () => connect(deciding.path) })
  await once(session, 'connect')
})
afterEach(() => session.destroy())

const headers = {
  ':method': 'POST',
  ':path': '/envoy.service.auth.v3.Authorization/Check',
  'content-type': 'application/grpc',
  te: 'trailers',
}

/** HTTP and gRPC status of one call. */
async function call(body: Uint8Array, more: Readonly<Record<string, string>> = {}) {
  const stream = session.request({ ...headers, ...more }, { endStream: false })
  let status: unknown
  let grpc: unknown
  stream.on('response', (it) => {
    status = it[':status']
    grpc = it['grpc-status'] ?? grpc
  })
  stream.on('trailers', (it) => (grpc = it['grpc-status']))
  stream.on('error', () => {})
  stream.resume()
  stream.end(body)
  if (!stream.closed) await once(stream, 'close')
  return [status, grpc]
}

it('an ordinary question is answered', async () => {
  expect(await call(encodeFrame(good))).toEqual([200, '0'])
})

it.each<[string, Uint8Array, string]>([
  ['no message', new Uint8Array(), '12'],
  ['half a message', encodeFrame(good).subarray(0, 40), '3'],
  ['two messages', Buffer.concat([encodeFrame(good), encodeFrame(good)]), '12'],
  ['no protobuf', encodeFrame(Buffer.from('ffffffffff', 'hex')), '3'],
  ['a string that is no UTF-8', encodeFrame(Buffer.from('0a09220712052203fffefd', 'hex')), '3'],
  ['a compressed message', Buffer.concat([Buffer.from([1]), encodeFrame(good).subarray(1)]), '12'],
  ['a message that is too long', encodeFrame(Buffer.alloc(2 * 1024 * 1024)), '8'],
])('%s is an error of the call, and of nothing else', async (_, body, code) => {
  const [, grpc] = await call(body)
  expect(grpc).toBe(code)
  expect(await call(encodeFrame(good))).toEqual([200, '0'])
})

it('an empty question is about a connection that nobody has made: denied', async () => {
  const { status } = await deciding.check({})
  expect(status?.code).toBe(7)
})

it.each<[string, Readonly<Record<string, string>>, unknown[]]>([
  ['another method of it', { ':path': '/envoy.service.auth.v3.Authorization/Other' }, [200, '12']],
  ['another service', { ':path': '/castellan.workload.v1.Sidecar/Subscribe' }, [200, '12']],
  ['GET', { ':method': 'GET' }, [405, undefined]],
  ['JSON', { 'content-type': 'application/json' }, [415, undefined]],
])('%s is not here', async (_, more, wanted) => {
  expect(await call(encodeFrame(good), more)).toEqual(wanted)
})

/** What the socket says to some bytes, until it ends the connection. */
async function say(bytes: Uint8Array | string): Promise<string> {
  const socket: Socket = connect(deciding.path)
  await once(socket, 'connect')
  const answer = untilClosed(socket)
  socket.end(bytes)
  return await answer
}

it.each([
  ['nothing', '', /^$/],
  ['half a preface', 'PR', /^$/],
  ['nonsense', '\0\0\0', /^HTTP\/1.1 400/],
  ['a request line that is none', 'POST\r\n\r\n', /^HTTP\/1.1 400/],
  ['TLS', '\x16\x03\x01\x02\x00', /^HTTP\/1.1 400/],
])('%s ends the connection, and only that', async (_, bytes, wanted) => {
  expect(await say(bytes)).toMatch(wanted)
  expect(await call(encodeFrame(good))).toEqual([200, '0'])
})

it('whatever bytes come, the next one is answered', async () => {
  const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.uint8Array({ maxLength: 200 }).map((it) => Buffer.concat([preface, it])),
  )
  await fc.assert(
    fc.asyncProperty(bytes, async (it) => {
      await say(it)
      expect(await call(encodeFrame(good))).toEqual([200, '0'])
    }),
    { numRuns: 60 },
  )
})

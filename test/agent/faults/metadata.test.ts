// Malformed metadata and worse at the socket that everybody may connect to: a right answer or a closed
// connection, and the next call is served.
import { once } from 'node:events'
import http2, { type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'
import { connect } from 'node:net'
import { fromBinary } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { X509SVIDResponseSchema } from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import {
  type Field,
  type Frame,
  fieldBlock,
  frame,
  grpcFields,
  opening,
  request,
  types,
  workloadFields,
} from '../../support/frames.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'
import { hasPerl } from '../../support/perl.ts'
import { rawHeaders } from '../../support/raw-grpc.ts'
import { startTalker, type Talker } from '../../support/talker.ts'

const method = 'FetchX509SVID'
const web = `spiffe://${trustDomain}/web`
const bare = grpcFields(`/SpiffeWorkloadAPI/${method}`)

let node: TestNode
beforeAll(async () => {
  node = await startNode()
  await node.register('/web', [`unix:uid:${process.getuid?.()}`])
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

const open = () => startTalker(node.agent.socket)

const idsIn = (message: Uint8Array = new Uint8Array()) =>
  fromBinary(X509SVIDResponseSchema, message).svids.map(({ spiffeId }) => spiffeId)

/** The call that has nothing wrong. */
async function isServed(talker: Talker, stream: number): Promise<void> {
  talker.send(request(stream, workloadFields(method)))
  const [message] = await talker.messages(stream, 1)
  expect(idsIn(message)).toEqual([web])
}

const secure = { 'workload.spiffe.io': 'true' } as const

async function sessionTo(path: string): Promise<ClientHttp2Session> {
  const session = http2.connect('http://localhost', { createConnection: () => connect(path) })
  session.on('error', () => {})
  await once(session, 'connect')
  return session
}

/** The first SVIDs of the stream, or why there is none. */
async function callOnce(session: ClientHttp2Session, metadata: OutgoingHttpHeaders) {
  const path = `/SpiffeWorkloadAPI/${method}`
  const stream = session.request({ ...rawHeaders, ':path': path, ...metadata })
  stream.end(Buffer.alloc(5))
  const [headers] = await once(stream, 'response')
  if ('grpc-status' in headers) {
    stream.close()
    return { status: headers['grpc-status'], message: String(headers['grpc-message']) }
  }
  const [chunk] = await once(stream, 'data')
  stream.close()
  return { svids: idsIn(chunk.subarray(5)) }
}

/** What ends `stream`: its reset, or its trailers. */
const endOf = (frames: readonly Frame[], stream: number) =>
  frames.find(
    ({ type, flags, stream: of }) =>
      of === stream && (type === types.reset || (type === types.headers && (flags & 1) === 1)),
  )

async function answerTo(talker: Talker, stream: number) {
  const frames = await talker.readUntil((it) => endOf(it, stream) !== undefined)
  return endOf(frames, stream)?.type
}

describe('metadata of a call that', () => {
  const many = Array.from({ length: 40 }, (_, i): Field => [`x-${i}`, 'y'])
  const fields = Object.fromEntries(many)
  const noHeader = /^security header missing/

  it.each<readonly [string, OutgoingHttpHeaders, RegExp | undefined]>([
    ['has no security header', {}, noHeader],
    ['has it twice', { 'workload.spiffe.io': ['true', 'true'] }, noHeader],
    ['has it as a list', { 'workload.spiffe.io': 'true, true' }, noHeader],
    ['has it in other words', { 'workload.spiffe.io': 'True' }, noHeader],
    ['has no text where text should be', { 'workload.spiffe.io': '\xff\xfe\x80' }, noHeader],
    ['has no base64 where bytes should be', { ...secure, 'junk-bin': '\x80!%' }, undefined],
    ['has forty fields more', { ...secure, ...fields }, undefined],
    ['has a timeout of junk', { ...secure, 'grpc-timeout': '1 fortnight' }, /^grpc-timeout is not/],
  ])(
    '%s is answered, and the connection lives on',
    async (_what, metadata, problem) => {
      const session = await sessionTo(node.agent.socket)
      const answer = await callOnce(session, metadata)
      if (problem === undefined) expect(answer).toEqual({ svids: [web] })
      else expect(answer).toEqual({ status: '3', message: expect.stringMatching(problem) })
      expect(await callOnce(session, secure)).toEqual({ svids: [web] })
      session.destroy()
    },
    20_000,
  )

  it.skipIf(!hasPerl).each<readonly [string, Field]>([
    ['has a name that is none', ['a b', 'c']],
    ['has a line break', ['x', 'y\r\nworkload.spiffe.io: false']],
    ['has the security header once more, with a line break', ['workload.spiffe.io', 'true\n']],
  ])(
    '%s is answered as though that field was not there',
    async (_what, field) => {
      await using talker = open()
      talker.send(Buffer.concat([opening(), request(1, [...workloadFields(method), field])]))
      expect(idsIn((await talker.messages(1, 1))[0])).toEqual([web])
      talker.send(request(3, [...bare, field]))
      expect(await answerTo(talker, 3)).toBe(types.headers)
    },
    20_000,
  )

  it.skipIf(!hasPerl).each<readonly [string, readonly Field[]]>([
    ['is over the limit', [...workloadFields(method), ['x', 'y'.repeat(16_200)]]],
    ['has a name in capitals', [...bare, ['Workload.Spiffe.Io', 'true']]],
    ['has an unknown pseudo field', [[':nobody', 'x'], ...workloadFields(method)]],
    ['has more fields than it may', [...workloadFields(method), ...many, ...many]],
  ])(
    '%s is reset, and the connection lives on',
    async (_what, fields) => {
      await using talker = open()
      talker.send(opening())
      // the limits hold once the settings are known to both
      await isServed(talker, 1)
      talker.send(frame(types.settings, 1, 0, new Uint8Array()))
      talker.send(request(3, fields))
      expect(await answerTo(talker, 3)).toBe(types.reset)
      await isServed(talker, 5)
    },
    20_000,
  )
})

describe.skipIf(!hasPerl)('bytes that are no HTTP/2', () => {
  const endless = Buffer.concat(
    Array.from({ length: 200 }, () => frame(types.continuation, 0, 1, Buffer.alloc(16_000, 0x10))),
  )

  it.each<readonly [string, Buffer]>([
    ['junk', Buffer.from('\x00\xffGET me a certificate\r\n\r\n', 'latin1')],
    ['HTTP/1.1', Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
    ['TLS', Buffer.from('16030100c8010000c40303', 'hex')],
    ['a frame of another length than it says', frame(types.ping, 0, 0, Buffer.of(1, 2, 3))],
    ['a field block that cannot be read', frame(types.headers, 4, 1, Buffer.alloc(50, 0xff))],
    [
      'a field block without end',
      Buffer.concat([frame(types.headers, 0, 1, fieldBlock(bare)), endless]),
    ],
  ])(
    '%s: the connection is closed, others are served',
    async (what, bytes) => {
      await using talker = open()
      const isFrame = what.startsWith('a ')
      talker.send(isFrame ? Buffer.concat([opening(), bytes]) : bytes)
      await talker.readAll()
      await using next = open()
      next.send(opening())
      await isServed(next, 1)
    },
    20_000,
  )
})

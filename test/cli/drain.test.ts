// An authority that is told to stop: GOAWAY, what is under way is answered, then it ends by itself.
import { once } from 'node:events'
import http2 from 'node:http2'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import { expect, it } from 'vitest'
import { GetInfoResponseSchema } from '../../proto/gen/spire/api/server/debug/v1/debug_pb.js'
import { testConfig } from '../support/ca.ts'
import { testFolder } from '../support/folder.ts'
import { rawHeaders } from '../support/raw-grpc.ts'
import { runCastellan } from '../support/running-command.ts'

const empty = Uint8Array.of(0, 0, 0, 0, 0)
const getInfo = '/spire.api.server.debug.v1.Debug/GetInfo'

it('SIGTERM: says GOAWAY, takes nothing new, answers what was begun, and exits with 0', async () => {
  using folder = testFolder()
  const { state } = testConfig(folder.path, 'development: true\n')
  const file = join(folder.path, 'ca.yaml')
  expect(await runCastellan(['ca', 'init', '--config', file]).ended).toBe(0)
  await using authority = runCastellan(['ca', 'run', '--config', file])
  await authority.line((line) => line.includes('ready'))
  const path = join(state, 'ca.sock')
  const session = http2.connect('http://localhost', { createConnection: () => connect(path) })
  const begun = session.request({ ...rawHeaders, ':path': getInfo })
  begun.write(empty.subarray(0, 1))
  const other = session.request({ ...rawHeaders, ':path': getInfo })
  other.end(empty)
  other.resume()
  await once(other, 'close')
  const goaway = once(session, 'goaway')
  const stopped = authority.stop()
  const [code] = await goaway
  expect(code).toBe(http2.constants.NGHTTP2_NO_ERROR)
  const [refusal] = await once(connect(path), 'error')
  expect(refusal).toMatchObject({ code: expect.stringMatching(/^(?:ECONNREFUSED|ENOENT)$/) })
  const trailers = once(begun, 'trailers')
  const chunks: Buffer[] = []
  begun.on('data', (chunk: Buffer) => chunks.push(chunk))
  begun.end(empty.subarray(1))
  expect((await trailers)[0]).toMatchObject({ 'grpc-status': '0' })
  const { svidChain } = fromBinary(GetInfoResponseSchema, Buffer.concat(chunks).subarray(5))
  expect(svidChain).not.toHaveLength(0)
  expect(await stopped).toBe(0)
}, 120_000)

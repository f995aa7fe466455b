// The endpoint itself: gRPC on a socket of this host, open to everybody on it, closed to who does not know the header.
import { strict as assert } from 'node:assert'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import http2 from 'node:http2'
import { connect } from 'node:net'
import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { Code, createClient } from '@connectrpc/connect'
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponse,
} from '../../../proto/gen/grpc/reflection/v1/reflection_pb.js'
import { rawCall } from '../../support/raw-grpc.ts'
import { assertWorkloadApi, methodNames, serviceName } from '../wire.ts'
import { check, first, patience } from './check.ts'
import type { Scene } from './scene.ts'

const emptyMessage = Buffer.alloc(5)

/** The status that a call made by hand is answered with. */
async function statusOf(socket: string, method: string, header: string | string[] | undefined) {
  const session = http2.connect('http://localhost', { createConnection: () => connect(socket) })
  session.on('error', () => {})
  try {
    await once(session, 'connect')
    const { headers, trailers } = await rawCall(session, emptyMessage, {
      ':path': `/${serviceName}/${method}`,
      ...(header === undefined ? {} : { 'workload.spiffe.io': header }),
    })
    return Number(trailers['grpc-status'] ?? headers['grpc-status'])
  } finally {
    session.destroy()
  }
}

type Question = ServerReflectionRequest['messageRequest']

async function reflected({ transport }: Scene, messageRequest: Question) {
  const reflection = createClient(ServerReflection, transport)
  async function* questions() {
    yield { messageRequest }
  }
  const stream = reflection.serverReflectionInfo(questions(), { signal: patience() })
  const { messageResponse }: ServerReflectionResponse = await first(stream)
  return messageResponse
}

export const endpointChecks = [
  check('WE-1 WE-4 WE-5 WE-11', 'gRPC on a unix socket, without TLS or credentials', (scene) => {
    assert.ok(statSync(scene.socket).isSocket(), 'no socket')
    assert.ok(scene.served.x509.svids.length > 0, 'it answers nothing')
  }),
  check('WE-3', 'workload.spiffe.io is true, once and exactly', async ({ socket }) => {
    for (const method of methodNames) {
      for (const header of [undefined, 'True', 'TRUE', '1', '', ['true', 'true']]) {
        const status = await statusOf(socket, method, header)
        const shown = `${method} with ${JSON.stringify(header) ?? 'no header'}`
        assert.equal(status, Code.InvalidArgument, `${shown} is answered with ${Code[status]}`)
      }
    }
  }),
  check('WE-12', 'reflection names the service', async (scene) => {
    const answer = await reflected(scene, { case: 'listServices', value: '*' })
    assert.equal(answer.case, 'listServicesResponse')
    const names = answer.value.service.map(({ name }) => name)
    assert.ok(names.includes(serviceName), `only ${names.join(', ')}`)
  }),
  check('WA-3', 'what reflection describes is the standard’s service', async (scene) => {
    const answer = await reflected(scene, { case: 'fileContainingSymbol', value: serviceName })
    assert.equal(answer.case, 'fileDescriptorResponse')
    const files = answer.value.fileDescriptorProto.map((bytes) =>
      fromBinary(FileDescriptorProtoSchema, bytes),
    )
    const file = files.find(({ service }) => service.some(({ name }) => name === serviceName))
    assertWorkloadApi(file ?? assert.fail(`no file with ${serviceName}`))
  }),
  check('WA-3', 'an RPC that the standard does not have is Unimplemented', async ({ socket }) => {
    assert.equal(await statusOf(socket, 'FetchEverything', 'true'), Code.Unimplemented)
  }),
]

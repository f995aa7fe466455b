import {
  create,
  createFileRegistry,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf'
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt'
import { createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, describe, expect, test } from 'vitest'
import { Echo } from '../../../proto/gen/castellan/test/v1/echo_pb.js'
import {
  ServerReflection,
  ServerReflectionRequestSchema,
} from '../../../proto/gen/grpc/reflection/v1/reflection_pb.js'
import {
  ServerReflection as ServerReflectionAlpha,
  ServerReflectionRequestSchema as ServerReflectionRequestSchemaAlpha,
} from '../../../proto/gen/grpc/reflection/v1alpha/reflection_pb.js'
import { Agent } from '../../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { reflectionServices } from '../../../runtime/grpc/reflection.ts'
import { startEcho } from '../../support/echo.ts'

const echo = await startEcho({ services: [...reflectionServices<string>([Echo, Agent])] })
afterAll(() => echo[Symbol.asyncDispose]())
const transport = createGrpcTransport({ baseUrl: `http://${echo.server.address}` })

type Question = NonNullable<
  MessageInitShape<typeof ServerReflectionRequestSchema>['messageRequest']
>

async function* v1(asked: readonly Question[]) {
  for (const messageRequest of asked) {
    yield create(ServerReflectionRequestSchema, { host: 'here', messageRequest })
  }
}

/** The two versions differ by name alone. */
async function* v1alpha(asked: readonly Question[]) {
  for await (const request of v1(asked)) {
    const bytes = toBinary(ServerReflectionRequestSchema, request)
    yield fromBinary(ServerReflectionRequestSchemaAlpha, bytes)
  }
}

/** Each file after all that it imports. */
function sorted(files: readonly FileDescriptorProto[]): FileDescriptorProto[] {
  const ready = (name: string) => done.some((file) => file.name === name)
  const done: FileDescriptorProto[] = []
  for (const _ of files) {
    const next = files.filter((file) => !done.includes(file) && file.dependency.every(ready))
    done.push(...next)
  }
  return done
}

const versions = {
  v1: (asked: readonly Question[]) =>
    createClient(ServerReflection, transport).serverReflectionInfo(v1(asked)),
  v1alpha: (asked: readonly Question[]) =>
    createClient(ServerReflectionAlpha, transport).serverReflectionInfo(v1alpha(asked)),
}

describe.each(Object.entries(versions))('%s', (_name, ask) => {
  async function answers(...asked: Question[]) {
    const all = []
    for await (const { messageResponse } of ask(asked)) all.push(messageResponse)
    return all
  }

  test('lists the services, itself among them', async () => {
    const [answer] = await answers({ case: 'listServices', value: '*' })
    if (answer?.case !== 'listServicesResponse') throw new TypeError(`got ${answer?.case}`)
    expect(answer.value.service.map(({ name }) => name)).toEqual([
      'castellan.test.v1.Echo',
      'spire.api.server.agent.v1.Agent',
      'grpc.reflection.v1.ServerReflection',
      'grpc.reflection.v1alpha.ServerReflection',
    ])
  })

  test.each([
    ['fileContainingSymbol', 'spire.api.server.agent.v1.Agent'],
    ['fileContainingSymbol', 'spire.api.server.agent.v1.Agent.AttestAgent'],
    ['fileContainingSymbol', 'spire.api.server.agent.v1.ListAgentsRequest.Filter'],
    ['fileContainingSymbol', 'spire.api.server.agent.v1.GetAgentRequest.output_mask'],
    ['fileContainingSymbol', 'spire.api.server.agent.v1.AttestAgentRequest.step'],
    ['fileByFilename', 'spire/api/server/agent/v1/agent.proto'],
  ] as const)('gives the files of %s %s, complete, its own first', async (kind, value) => {
    const [answer] = await answers({ case: kind, value })
    if (answer?.case !== 'fileDescriptorResponse') throw new TypeError(`got ${answer?.case}`)
    const file = answer.value.fileDescriptorProto.map((bytes) =>
      fromBinary(FileDescriptorProtoSchema, bytes),
    )
    expect(file[0]?.name).toBe('spire/api/server/agent/v1/agent.proto')
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: sorted(file) }))
    const methods = registry.getService('spire.api.server.agent.v1.Agent')?.methods
    expect(methods?.map(({ name }) => name)).toEqual(Agent.methods.map(({ name }) => name))
  })

  test('knows the values of an enum, beside it as protobuf has them', async () => {
    const [answer] = await answers({
      case: 'fileContainingSymbol',
      value: 'spire.api.types.SelectorMatch.MATCH_SUPERSET',
    })
    if (answer?.case !== 'fileDescriptorResponse') throw new TypeError(`got ${answer?.case}`)
    const [file = new Uint8Array()] = answer.value.fileDescriptorProto
    expect(fromBinary(FileDescriptorProtoSchema, file).name).toBe('spire/api/types/selector.proto')
  })

  test('says what it does not know, and goes on', async () => {
    const value = { errorCode: 5 }
    expect(
      await answers(
        { case: 'fileContainingSymbol', value: 'no.Such' },
        { case: 'fileByFilename', value: 'no.proto' },
        { case: 'allExtensionNumbersOfType', value: 'no.Such' },
        {
          case: 'fileContainingExtension',
          value: { containingType: 'no.Such', extensionNumber: 1 },
        },
        { case: 'allExtensionNumbersOfType', value: 'castellan.test.v1.EchoRequest' },
        { case: undefined },
      ),
    ).toMatchObject([
      { case: 'errorResponse', value },
      { case: 'errorResponse', value },
      { case: 'errorResponse', value },
      { case: 'errorResponse', value },
      {
        case: 'allExtensionNumbersResponse',
        value: { baseTypeName: 'castellan.test.v1.EchoRequest', extensionNumber: [] },
      },
      { case: 'errorResponse', value },
    ])
  })
})

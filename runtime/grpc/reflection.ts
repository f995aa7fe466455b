// grpc.reflection.v1 and v1alpha: what grpcurl and its kin ask a server about its services.
import {
  type DescEnum,
  type DescExtension,
  type DescFile,
  type DescMessage,
  type DescService,
  toBinary,
} from '@bufbuild/protobuf'
import { nestedTypes } from '@bufbuild/protobuf/reflect'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import {
  ServerReflection,
  type ServerReflectionRequest,
} from '../../proto/gen/grpc/reflection/v1/reflection_pb.js'
import {
  ServerReflection as ServerReflectionAlpha,
  type ServerReflectionRequest as ServerReflectionRequestAlpha,
} from '../../proto/gen/grpc/reflection/v1alpha/reflection_pb.js'
import { meaningOf } from '../../spiffe/errors.ts'
import { type Service, service } from './service.ts'

/** What the services are made of, by the names that a client may ask for. */
interface Index {
  readonly services: readonly string[]
  readonly files: ReadonlyMap<string, DescFile>
  readonly symbols: ReadonlyMap<string, DescFile>
  /** by the extended message */
  readonly extensions: ReadonlyMap<string, readonly DescExtension[]>
}

function withDependencies(file: DescFile, into = new Map<string, DescFile>()) {
  if (into.has(file.proto.name)) return into
  into.set(file.proto.name, file)
  for (const dependency of file.dependencies) withDependencies(dependency, into)
  return into
}

function membersOf(type: DescMessage | DescEnum | DescExtension | DescService): readonly string[] {
  const within = (scope: string, members: readonly { readonly name: string }[]) =>
    members.map(({ name }) => (scope === '' ? name : `${scope}.${name}`))
  switch (type.kind) {
    case 'service':
      return within(type.typeName, type.methods)
    case 'message':
      return within(type.typeName, [...type.fields, ...type.oneofs])
    case 'enum':
      // values stand beside their enum, not in it
      return within(type.parent?.typeName ?? type.file.proto.package, type.values)
    case 'extension':
      return []
  }
}

function symbolsOf(file: DescFile): readonly string[] {
  return [...nestedTypes(file)].flatMap((type) => [type.typeName, ...membersOf(type)])
}

function createIndex(services: readonly DescService[]): Index {
  const files = new Map<string, DescFile>()
  for (const { file } of services) withDependencies(file, files)
  const symbols = new Map<string, DescFile>()
  const extensions = new Map<string, DescExtension[]>()
  for (const file of files.values()) {
    for (const symbol of symbolsOf(file)) symbols.set(symbol, file)
    for (const type of nestedTypes(file)) {
      if (type.kind !== 'extension') continue
      const extended = type.extendee.typeName
      extensions.set(extended, [...(extensions.get(extended) ?? []), type])
    }
  }
  return { services: services.map(({ typeName }) => typeName), files, symbols, extensions }
}

function notFound(what: string) {
  const errorCode = meaningOf('ERR_NOT_FOUND').grpc
  return { case: 'errorResponse', value: { errorCode, errorMessage: `no such ${what}` } } as const
}

/** A file comes with all it imports, its own first, so that a client needs no second question. */
function fileResponse(file: DescFile | undefined, what: string) {
  if (file === undefined) return notFound(what)
  const fileDescriptorProto = [...withDependencies(file).values()].map(({ proto }) =>
    toBinary(FileDescriptorProtoSchema, proto),
  )
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } } as const
}

type Question = (ServerReflectionRequest | ServerReflectionRequestAlpha)['messageRequest']

function answerTo(question: Question, index: Index) {
  switch (question.case) {
    case 'listServices': {
      const value = { service: index.services.map((name) => ({ name })) }
      return { case: 'listServicesResponse', value } as const
    }
    case 'fileByFilename':
      return fileResponse(index.files.get(question.value), 'file')
    case 'fileContainingSymbol':
      return fileResponse(index.symbols.get(question.value), 'symbol')
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = question.value
      const known = index.extensions.get(containingType) ?? []
      return fileResponse(known.find(({ number }) => number === extensionNumber)?.file, 'extension')
    }
    case 'allExtensionNumbersOfType': {
      if (!index.symbols.has(question.value)) return notFound('message')
      const known = index.extensions.get(question.value) ?? []
      const value = {
        baseTypeName: question.value,
        extensionNumber: known.map(({ number }) => number),
      }
      return { case: 'allExtensionNumbersResponse', value } as const
    }
    case undefined:
      return notFound('question')
  }
}

/** `services` are all that the server has beside these, health too: a client can call only what it is told of. */
export function reflectionServices<P>(services: readonly DescService[]): readonly Service<P>[] {
  const index = createIndex([...services, ServerReflection, ServerReflectionAlpha])

  async function* answers<R extends ServerReflectionRequest | ServerReflectionRequestAlpha>(
    requests: AsyncIterable<R>,
  ) {
    for await (const request of requests) {
      const messageResponse = answerTo(request.messageRequest, index)
      yield { validHost: request.host, originalRequest: request, messageResponse }
    }
  }

  return [
    service(ServerReflection, {
      serverReflectionInfo: (requests) => answers<ServerReflectionRequest>(requests),
    }),
    service(ServerReflectionAlpha, {
      serverReflectionInfo: (requests) => answers<ServerReflectionRequestAlpha>(requests),
    }),
  ]
}

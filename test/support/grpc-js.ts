// grpc-js as a caller of Echo: the client that most Node programs use.
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {
  Echo,
  type EchoReply,
  EchoReplySchema,
  EchoRequestSchema,
} from '../../proto/gen/castellan/test/v1/echo_pb.js'

export type Ask = MessageInitShape<typeof EchoRequestSchema>

const encode = (ask: Ask) =>
  Buffer.from(toBinary(EchoRequestSchema, create(EchoRequestSchema, ask)))
const decode = (bytes: Buffer) => fromBinary(EchoReplySchema, bytes)
const path = (name: string) => `/${Echo.typeName}/${name}`

export interface EchoClient extends Disposable {
  unary(ask: Ask, options?: grpc.CallOptions, metadata?: grpc.Metadata): Promise<EchoReply>
  /** a unary call that can be cancelled, and its result */
  start(ask: Ask): { call: grpc.ClientUnaryCall; reply: Promise<EchoReply> }
  expand(ask: Ask, options?: grpc.CallOptions): grpc.ClientReadableStream<EchoReply>
  collect(asks: readonly Ask[]): Promise<EchoReply>
  chat(options?: grpc.CallOptions): grpc.ClientDuplexStream<Ask, EchoReply>
}

export function echoClient(
  address: string,
  credentials: grpc.ChannelCredentials = grpc.credentials.createInsecure(),
  options: grpc.ClientOptions = {},
): EchoClient {
  const target = address.startsWith('/') ? `unix:${address}` : address
  const client = new grpc.Client(target, credentials, {
    'grpc.use_local_subchannel_pool': 1,
    ...options,
  })

  function start(ask: Ask, callOptions: grpc.CallOptions = {}, metadata = new grpc.Metadata()) {
    const { promise: reply, resolve, reject } = Promise.withResolvers<EchoReply>()
    const call = client.makeUnaryRequest(
      path('Unary'),
      encode,
      decode,
      ask,
      metadata,
      callOptions,
      (error, value) => (value === undefined ? reject(error) : resolve(value)),
    )
    return { call, reply }
  }

  return {
    start: (ask) => start(ask),
    unary: (ask, callOptions, metadata) => start(ask, callOptions, metadata).reply,
    expand: (ask, callOptions = {}) =>
      client.makeServerStreamRequest(path('Expand'), encode, decode, ask, callOptions),
    collect(asks) {
      const { promise, resolve, reject } = Promise.withResolvers<EchoReply>()
      const call = client.makeClientStreamRequest(
        path('Collect'),
        encode,
        decode,
        (error, value) => (value === undefined ? reject(error) : resolve(value)),
      )
      for (const ask of asks) call.write(ask)
      call.end()
      return promise
    },
    chat: (callOptions = {}) =>
      client.makeBidiStreamRequest(path('Chat'), encode, decode, callOptions),
    [Symbol.dispose]: () => client.close(),
  }
}

/** All that a stream gives; rejects with its error. */
export async function gather<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const one of stream) all.push(one)
  return all
}

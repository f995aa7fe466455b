// The child process of the gRPC benchmark: one Echo server, and what CPU it has used so far.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {
  Echo,
  type EchoReply,
  EchoReplySchema,
  type EchoRequest,
  EchoRequestSchema,
} from '../proto/gen/castellan/test/v1/echo_pb.js'
import { startGrpcServer } from '../runtime/grpc/server.ts'
import { service } from '../runtime/grpc/service.ts'

interface Pem {
  readonly cert: string
  readonly key: string
}

async function startOurs({ cert, key }: Pem): Promise<number> {
  const server = await startGrpcServer({
    listen: { host: '127.0.0.1', port: 0 },
    tls: { cert, key },
    peer: () => undefined,
    services: [
      service(Echo, {
        unary: ({ text }) => ({ text }),
        async *expand({ text, count }) {
          for (let number = 0; number < count; number++) yield { text, number }
        },
      }),
    ],
  })
  return server.port
}

const method = (name: string, responseStream: boolean) => ({
  path: `/${Echo.typeName}/${name}`,
  requestStream: false,
  responseStream,
  requestSerialize: (ask: EchoRequest) => Buffer.from(toBinary(EchoRequestSchema, ask)),
  requestDeserialize: (bytes: Buffer) => fromBinary(EchoRequestSchema, bytes),
  responseSerialize: (reply: EchoReply) => Buffer.from(toBinary(EchoReplySchema, reply)),
  responseDeserialize: (bytes: Buffer) => fromBinary(EchoReplySchema, bytes),
})

async function expand(call: grpc.ServerWritableStream<EchoRequest, EchoReply>): Promise<void> {
  const { text, count } = call.request
  for (let number = 0; number < count; number++) {
    const goOn = call.write(create(EchoReplySchema, { text, number }))
    if (!goOn) await new Promise((resolve) => call.once('drain', resolve))
  }
  call.end()
}

async function startPeer({ cert, key }: Pem): Promise<number> {
  const server = new grpc.Server()
  server.addService(
    { unary: method('Unary', false), expand: method('Expand', true) },
    {
      unary(
        { request }: grpc.ServerUnaryCall<EchoRequest, EchoReply>,
        callback: grpc.sendUnaryData<EchoReply>,
      ) {
        callback(null, create(EchoReplySchema, { text: request.text }))
      },
      expand: (call: grpc.ServerWritableStream<EchoRequest, EchoReply>) => void expand(call),
    },
  )
  const pair = { cert_chain: Buffer.from(cert), private_key: Buffer.from(key) }
  const credentials = grpc.ServerCredentials.createSsl(null, [pair])
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  server.bindAsync('127.0.0.1:0', credentials, (error, port) =>
    error === null ? resolve(port) : reject(error),
  )
  return promise
}

const servers: Readonly<Record<string, (pem: Pem) => Promise<number>>> = {
  castellan: startOurs,
  'grpc-js': startPeer,
}

const [name = '', cert = '', key = ''] = process.argv.slice(2)
const port = await servers[name]?.({ cert, key })
process.send?.(port)
// any message asks for the CPU used, in microseconds
process.on('message', () => {
  const { user, system } = process.cpuUsage()
  process.send?.(user + system)
})

// The child process of the benchmark of decisions: one server at a socket, and what CPU it has used so far.
import { createServer } from 'node:net'
import { create, toBinary } from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import { responseOf } from '../agent/authz/grpc.ts'
import { serveHttp2 } from '../agent/authz/http2/session.ts'
import { CheckResponseSchema } from '../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { bundleOf } from '../spiffe/bundle.ts'
import { parseTrustDomain } from '../spiffe/id.ts'
import { bundleMessage, entryOf, payments, startDeciding } from '../test/agent/authz/deciding.ts'
import { method, policyFiles } from './authz-load.ts'

/** What an allowed request is answered, to the byte. */
const answer = toBinary(
  CheckResponseSchema,
  create(CheckResponseSchema, {
    status: { code: 0 },
    httpResponse: {
      case: 'okResponse',
      value: {
        headers: [
          {
            header: {
              key: 'x-spiffe-peer-id',
              value: 'spiffe://example.org/ns/shop/sa/client-5000',
            },
            appendAction: 2,
          },
        ],
      },
    },
    dynamicMetadata: {
      ...{ outcome: 'allowed', policy: 'shop/p5000', rule: 0 },
      source: 'spiffe://example.org/ns/shop/sa/client-5000',
    },
  }),
)

/** HTTP/2 alone: the same answer to whatever is asked. */
async function startBare(path: string): Promise<void> {
  const response = responseOf(answer)
  const server = createServer((socket) => {
    serveHttp2(socket, {
      ...{ bodyBytes: 1024 * 1024, headerBytes: 16 * 1024, streams: 1000 },
      now: () => performance.now(),
      answer: () => response,
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
}

/** All that an agent does for one request. */
async function startWhole(path: string, root: string): Promise<void> {
  const deciding = await startDeciding({ path })
  const { entry, labels } = entryOf(payments)
  const bundle = bundleOf(parseTrustDomain('example.org'), [Buffer.from(root, 'base64')])
  deciding.apply({
    ...{ snapshot: true, entries: [entry], labels: [labels] },
    bundle: bundleMessage(bundle),
  })
  deciding.apply({ policies: { version: 1n, files: policyFiles() } })
  const { policies, refusal } = deciding.ledger.own ?? {}
  if (policies !== 1n) throw new Error(`the policies are not in force: ${refusal}`)
}

function startPeer(path: string): Promise<void> {
  const server = new grpc.Server()
  const same = (bytes: Buffer) => bytes
  const response = Buffer.from(answer)
  server.addService(
    {
      check: {
        ...{ path: method, requestStream: false, responseStream: false },
        ...{ requestSerialize: same, requestDeserialize: same },
        ...{ responseSerialize: same, responseDeserialize: same },
      },
    },
    {
      check: (_: unknown, callback: grpc.sendUnaryData<Buffer>) => callback(null, response),
    },
  )
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.bindAsync(`unix:${path}`, grpc.ServerCredentials.createInsecure(), (error) =>
    error === null ? resolve() : reject(error),
  )
  return promise
}

const servers: Readonly<Record<string, (path: string, root: string) => Promise<void>>> = {
  bare: startBare,
  whole: startWhole,
  'grpc-js': startPeer,
}

const [name = '', path = '', root = ''] = process.argv.slice(2)
await servers[name]?.(path, root)
process.send?.(0)
// any message asks for the CPU used, in microseconds
process.on('message', () => {
  const { user, system } = process.cpuUsage()
  process.send?.(user + system)
})

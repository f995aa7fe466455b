// A proxyless gRPC program of grpc-js-xds: `server ADDRESS NAME` answers every call with its name; `client` calls what
// it is told on its input, a line each, and says how that went.
import { createInterface } from 'node:readline'
import * as grpc from '@grpc/grpc-js'
import { register, XdsChannelCredentials, XdsServer, XdsServerCredentials } from '@grpc/grpc-js-xds'

const same = (bytes: Buffer) => bytes

const method = (path: string) => ({
  ...{ path, requestStream: false, responseStream: false },
  ...{ requestSerialize: same, requestDeserialize: same },
  ...{ responseSerialize: same, responseDeserialize: same },
})

function serve(address: string, name: string): void {
  const server = new XdsServer()
  const answer: grpc.handleUnaryCall<Buffer, Buffer> = (_, callback) =>
    callback(null, Buffer.from(name))
  server.addService(
    {
      unary: method('/castellan.test.v1.Echo/Unary'),
      other: method('/castellan.test.v1.Echo/Other'),
    },
    { unary: answer, other: answer },
  )
  const credentials = new XdsServerCredentials(grpc.ServerCredentials.createInsecure())
  server.bindAsync(address, credentials, (error) => {
    console.log(error === null ? 'serving' : `failed: ${error.message}`)
  })
}

const open = (name: string): grpc.Client =>
  new grpc.Client(
    `xds:///${name}`,
    new XdsChannelCredentials(grpc.ChannelCredentials.createInsecure()),
    { 'grpc.use_local_subchannel_pool': 1 },
  )

function call(client: grpc.Client, path: string, fields: readonly string[]): Promise<string> {
  const metadata = new grpc.Metadata()
  for (const field of fields) {
    const [name = '', value = ''] = field.split('=')
    metadata.add(name, value)
  }
  const deadline = new Date(Date.now() + 8_000)
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      path,
      same,
      same,
      Buffer.from('hi'),
      metadata,
      { deadline },
      (error, value) =>
        resolve(
          error === null ? `ok ${value}` : `error ${grpc.status[error.code]} ${error.details}`,
        ),
    )
  })
}

async function talk(): Promise<void> {
  const kept = new Map<string, grpc.Client>()
  console.log('serving')
  for await (const line of createInterface({ input: process.stdin })) {
    const [verb, name = '', path = '', ...fields] = line.split(' ')
    const client = kept.get(name) ?? open(name)
    if (verb === 'call') kept.set(name, client)
    const used = verb === 'call' ? client : open(name)
    console.log((await call(used, path, fields)).replaceAll('\n', ' '))
    if (verb !== 'call') used.close()
  }
  process.exit(0)
}

register()
const [mode, address = '', name = ''] = process.argv.slice(2)
if (mode === 'server') {
  serve(address, name)
  process.stdin.on('end', () => process.exit(0)).resume()
} else await talk()

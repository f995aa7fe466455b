// The Broker API on an address: what is on this node cannot be referred to from there.
import { create } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { expect, it } from 'vitest'
import { createHttp2Sessions } from '../../client/http2-sessions.ts'
import { connectTls } from '../../client/tls-connect.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { API, WorkloadPIDReferenceSchema } from '../../proto/gen/spiffe/broker/api_pb.js'
import { startNode, trustDomain } from '../support/node.ts'
import { freePort } from '../support/ports.ts'

it('BR-6 BR-15 refuses references to processes', async () => {
  const port = await freePort()
  const broker = { listen: `127.0.0.1:${port}`, brokers: [`spiffe://${trustDomain}/broker`] }
  await using node = await startNode({ agent: { incubating: true, broker } })
  await node.register('/broker', [`unix:uid:${process.getuid?.()}`])
  await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
  const isAgent = `spiffe://${trustDomain}/spire/agent/`
  const { socket } = await connectTls(source, {
    ...{ host: '127.0.0.1', port, protocols: ['h2'], signal: AbortSignal.timeout(60_000) },
    accept: (id) => (id.startsWith(isAgent) ? undefined : 'it is no agent'),
  })
  const baseUrl = 'https://broker.test'
  using sessionManager = createHttp2Sessions(baseUrl, { createConnection: () => socket })
  const client = createClient(API, createGrpcTransport({ baseUrl, sessionManager }))
  const pid = create(WorkloadPIDReferenceSchema, { pid: process.pid })
  const reference = { reference: anyPack(WorkloadPIDReferenceSchema, pid) }
  const headers = { 'broker.spiffe.io': 'true' }
  const call = client.fetchJWTSVID({ reference, audience: ['db'] }, { headers })
  const refused = ConnectError.from(await call.catch((error: unknown) => error))
  expect(refused.code).toBe(Code.InvalidArgument)
  expect(refused.rawMessage).toContain('to a process, but was asked for over the network')
})

// The Workload API as workloads meet it: a real agent, a real authority, a real socket.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import http2 from 'node:http2'
import { connect } from 'node:net'
import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { startX509Source, type X509Context } from '../../client/x509-source.ts'
import { Sidecar } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import {
  ServerReflection,
  type ServerReflectionRequest,
} from '../../proto/gen/grpc/reflection/v1/reflection_pb.js'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { createLatest } from '../../runtime/lifecycle.ts'
import { bundleOfDer, bundleSourceOf } from '../../spiffe/bundle.ts'
import { splitDer } from '../../spiffe/certificate.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { assertWorkloadApi } from '../conformance/wire.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { rawCall } from '../support/raw-grpc.ts'

let node: TestNode
beforeAll(async () => {
  node = await startNode()
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

const uid = `unix:uid:${process.getuid?.()}`
const patience = () => AbortSignal.timeout(60_000)

async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const message of stream) return message
  throw new Error('the stream ended')
}

async function codeOf(promise: Promise<unknown>): Promise<{ code: Code; message: string }> {
  const error = await promise.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof ConnectError)) throw error
  return { code: error.code, message: error.rawMessage }
}

function ask(transport: Transport, headers: [string, string][] = []) {
  return first(
    createClient(SpiffeWorkloadAPI, transport).fetchX509SVID({}, { headers, signal: patience() }),
  )
}

async function reflected(
  transport: Transport,
  messageRequest: ServerReflectionRequest['messageRequest'],
) {
  async function* question() {
    yield { messageRequest }
  }
  const answers = createClient(ServerReflection, transport).serverReflectionInfo(question())
  return (await first(answers)).messageResponse
}

describe('Workload API', () => {
  it('WE-3 every request carries workload.spiffe.io: true, exactly so', async () => {
    using bare = openTransport({ kind: 'unix', path: node.agent.socket })
    for (const value of ['True', 'TRUE', '1', '']) {
      const refusal = await codeOf(ask(bare.transport, [['workload.spiffe.io', value]]))
      expect(refusal.code).toBe(Code.InvalidArgument)
      expect(refusal.message).toContain('security header missing')
    }
    expect((await codeOf(ask(bare.transport))).code).toBe(Code.InvalidArgument)
    const twice = await codeOf(
      ask(bare.transport, [
        ['workload.spiffe.io', 'true'],
        ['workload.spiffe.io', 'true'],
      ]),
    )
    expect(twice.code).toBe(Code.InvalidArgument)
  })

  it('WA-7 WA-11 WA-28 a caller without entry has no identity; with one it is pushed at once, and withdrawn at once', async () => {
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    expect(await codeOf(ask(local.transport))).toEqual({
      code: Code.PermissionDenied,
      message: 'no identity issued',
    })

    const id = await node.register('/workload', [uid])
    const seen: (X509Context | undefined)[] = []
    const withdrawn = Promise.withResolvers<void>()
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    source.subscribe((context) => {
      seen.push(context)
      if (context === undefined) withdrawn.resolve()
    })
    const context = await source.ready(patience())
    expect(context.svids.map((svid) => svid.id)).toEqual([`spiffe://${trustDomain}/workload`])

    await createClient(Entry, node.local).batchDeleteEntry({ ids: [id] })
    await withdrawn.promise
    expect(source.current()).toBeUndefined()
    expect((await codeOf(ask(local.transport))).code).toBe(Code.PermissionDenied)
  })

  it('WA-12 the answer is a verified chain, its key, and the bundle', async () => {
    const id = await node.register('/whole', [uid])
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    await source.ready(patience())
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    const [svid] = (await ask(local.transport)).svids
    if (svid === undefined) throw new Error('no SVID')
    const bundle = bundleOfDer(parseTrustDomain(trustDomain), svid.bundle)
    const verified = verifySvid(splitDer(svid.x509Svid), bundleSourceOf(bundle), {
      now: Date.now(),
    })
    expect(verified.id).toBe(svid.spiffeId)
    const bundles = await first(
      createClient(SpiffeWorkloadAPI, local.transport).fetchX509Bundles({}, { signal: patience() }),
    )
    expect(Object.keys(bundles.bundles)).toEqual([`spiffe://${trustDomain}`])
    const withdrawn = Promise.withResolvers<void>()
    source.subscribe((context) => {
      if (context === undefined) withdrawn.resolve()
    })
    await createClient(Entry, node.local).batchDeleteEntry({ ids: [id] })
    // the next test is to meet an agent that has heard of it
    await withdrawn.promise
  })

  it('selectors: uid, gid, path and sha256 of the program that asks, and only those', async () => {
    const digest = createHash('sha256').update(readFileSync(process.execPath)).digest('hex')
    const mine = [
      uid,
      `unix:gid:${process.getgid?.()}`,
      `unix:path:${process.execPath}`,
      `unix:sha256:${digest}`,
    ]
    const own = await node.register('/all-selectors', mine)
    const other = await node.register('/other-path', [uid, 'unix:path:/usr/bin/other'])
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    const { svids } = await source.ready(patience())
    expect(svids.map((svid) => svid.id)).toEqual([`spiffe://${trustDomain}/all-selectors`])
    await createClient(Entry, node.local).batchDeleteEntry({ ids: [own, other] })
  })

  it('R12 an entry that was deleted and made again under the same id is taken as it is now', async () => {
    const entry = (path: string) => ({
      id: 'the-same',
      spiffeId: { trustDomain, path },
      parentId: { trustDomain, path: '/node' },
      selectors: [{ type: 'unix', value: uid.slice('unix:'.length) }],
    })
    const entries = createClient(Entry, node.local)
    await entries.batchCreateEntry({ entries: [entry('/before')] })
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    await source.ready(patience())
    const renamed = Promise.withResolvers<void>()
    source.subscribe((context) => {
      if (context?.svids[0].id === `spiffe://${trustDomain}/after`) renamed.resolve()
    })
    // in one breath: the agent may hear of both at once
    await entries.batchDeleteEntry({ ids: ['the-same'] })
    await entries.batchCreateEntry({ entries: [entry('/after')] })
    await renamed.promise
    await entries.batchDeleteEntry({ ids: ['the-same'] })
  })

  it('a sidecar that loses its last identity is told so, whatever it still has to say', async () => {
    const id = await node.register('/sidecar', [uid])
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    await source.ready(patience())
    using local = openTransport({ kind: 'unix', path: node.agent.socket })
    const silence = new AbortController()
    async function* silent() {
      for await (const _ of createLatest<never>(silence.signal)) yield {}
    }
    const states = createClient(Sidecar, local.transport).subscribe(silent(), {
      signal: patience(),
    })
    const messages = states[Symbol.asyncIterator]()
    expect((await messages.next()).done).toBe(false)
    await createClient(Entry, node.local).batchDeleteEntry({ ids: [id] })
    const ended = async () => {
      for (;;) if ((await messages.next()).done === true) return
    }
    expect((await codeOf(ended())).code).toBe(Code.PermissionDenied)
    silence.abort()
  })

  it('WA-2 the WIT profile answers Unimplemented unless it is switched on', async () => {
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    const client = createClient(SpiffeWorkloadAPI, local.transport)
    expect((await codeOf(first(client.fetchWITSVID({})))).code).toBe(Code.Unimplemented)
    expect((await codeOf(first(client.fetchWITBundles({})))).code).toBe(Code.Unimplemented)
  })

  it('WE-1 WE-4 WE-5 WE-11 is gRPC on a unix socket, for who brings neither TLS nor credentials', async () => {
    expect(statSync(node.agent.socket).isSocket()).toBe(true)
    const createConnection = () => connect(node.agent.socket)
    const session = http2.connect('http://localhost', { createConnection })
    await once(session, 'connect')
    const { headers } = await rawCall(session, Buffer.alloc(5), {
      ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
      'workload.spiffe.io': 'true',
    })
    session.close()
    expect(headers).toMatchObject({
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-status': String(Code.PermissionDenied),
    })
  })

  it('WA-3 WE-12 is the standard’s service and no more, as reflection says', async () => {
    using local = openTransport({ kind: 'unix', path: node.agent.socket })
    const answer = await reflected(local.transport, {
      case: 'fileContainingSymbol',
      value: 'SpiffeWorkloadAPI',
    })
    if (answer.case !== 'fileDescriptorResponse') throw new Error('no file')
    const [file = new Uint8Array()] = answer.value.fileDescriptorProto
    assertWorkloadApi(fromBinary(FileDescriptorProtoSchema, file))
  })

  it('tells by reflection of all services of its socket, health too', async () => {
    using local = openTransport({ kind: 'unix', path: node.agent.socket })
    const answer = await reflected(local.transport, { case: 'listServices', value: '*' })
    if (answer.case !== 'listServicesResponse') throw new Error('no list')
    expect(answer.value.service.map(({ name }) => name)).toEqual([
      'SpiffeWorkloadAPI',
      'castellan.workload.v1.Sidecar',
      'envoy.service.secret.v3.SecretDiscoveryService',
      'envoy.service.discovery.v3.AggregatedDiscoveryService',
      'grpc.health.v1.Health',
      ...['v1', 'v1alpha'].map((version) => `grpc.reflection.${version}.ServerReflection`),
    ])
  })

  it('WA-5 WA-6 WA-27 each message is the whole state, in one order', async () => {
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    const client = createClient(SpiffeWorkloadAPI, local.transport)
    const made = [await node.register('/m', [uid]), await node.register('/z', [uid])]
    const until = async (count: number) => {
      for await (const message of client.fetchX509SVID({}, { signal: patience() }))
        if (message.svids.length === count) return message
      throw new Error('the stream ended')
    }
    const before = await until(2)
    // nothing changes, and yet a new stream has its first message
    expect(await first(client.fetchX509SVID({}, { signal: patience() }))).toEqual(before)
    made.push(await node.register('/a', [uid]))
    const after = await until(3)
    const others = after.svids.filter(({ spiffeId }) => !spiffeId.endsWith('/a'))
    expect(others).toEqual(before.svids)
    for (const svid of after.svids)
      for (const field of [svid.x509Svid, svid.x509SvidKey, svid.bundle])
        expect(field.length).toBeGreaterThan(0)
    await createClient(Entry, node.local).batchDeleteEntry({ ids: made })
  })

  it('WA-17 bundles are for who has an identity', async () => {
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    const client = createClient(SpiffeWorkloadAPI, local.transport)
    const messages = client.fetchX509SVID({}, { signal: patience() })
    // the agent may not have heard yet that the last entries are gone
    await codeOf(
      (async () => {
        for await (const _ of messages);
      })(),
    )
    const refusal = await codeOf(first(client.fetchX509Bundles({}, { signal: patience() })))
    expect(refusal.code).toBe(Code.PermissionDenied)
    const id = await node.register('/verifier', [uid])
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    await source.ready(patience())
    const { bundles } = await first(client.fetchX509Bundles({}, { signal: patience() }))
    expect(Object.keys(bundles)).toEqual([`spiffe://${trustDomain}`])
    await createClient(Entry, node.local).batchDeleteEntry({ ids: [id] })
  })
})

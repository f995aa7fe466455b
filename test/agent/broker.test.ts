// The SPIFFE Broker API: mutual TLS on a unix socket and on an address, brokers by their IDs.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readlinkSync, statSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { dirname, join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { create } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createHttp2Sessions } from '../../client/http2-sessions.ts'
import { type OwnSvid, startX509Source, type X509Context } from '../../client/x509-source.ts'
import { ErrorInfoSchema } from '../../proto/gen/google/rpc/error_details_pb.js'
import {
  API,
  KubernetesObjectReferenceSchema,
  type SubscribeToX509SVIDResponse,
  WorkloadPIDReferenceSchema,
} from '../../proto/gen/spiffe/broker/api_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { bundleToPem } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { keyPairToPem } from '../../spiffe/pem.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'

const uid = `unix:uid:${process.getuid?.()}`
const idOf = (path: string) => `spiffe://${trustDomain}${path}`
const patience = { timeout: 60_000, interval: 100 }
const signal = () => AbortSignal.timeout(60_000)

let node: TestNode
let context: X509Context
const socket = () => join(node.folder, 'broker/broker.sock')

beforeAll(async () => {
  node = await startNode({
    agent: {
      incubating: true,
      broker: { socket: 'broker/broker.sock', brokers: [idOf('/broker')] },
    },
  })
  await node.register('/broker', [uid])
  await node.register('/other', [uid])
  await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
  await source.ready(signal())
  await vi.waitFor(() => expect(source.current()?.svids).toHaveLength(2), patience)
  const known = source.current()
  if (known === undefined) throw new Error('no identity')
  context = known
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

const header: Interceptor = (next) => (request) => {
  request.header.set('broker.spiffe.io', 'true')
  return next(request)
}

function svidOf(path: string): OwnSvid {
  const svid = context.svids.find(({ id }) => id === idOf(path))
  if (svid === undefined) throw new Error(`no SVID of ${path}`)
  return svid
}

/** As that identity, or as nobody; the agent's own ID is verified. */
function open(path: string | undefined, interceptors: Interceptor[] = [header]) {
  const bundle = context.bundles(parseTrustDomain(trustDomain))
  if (bundle === undefined) throw new Error('no bundle')
  const svid = path === undefined ? undefined : svidOf(path)
  const own = svid === undefined ? {} : keyPairToPem(svid)
  const match = (id: string) => (id.startsWith(idOf('/spire/agent/')) ? undefined : 'no agent')
  const sessionManager = createHttp2Sessions('https://broker.test', {
    createConnection: () =>
      connectTls({
        socket: connectSocket(socket()),
        ca: bundleToPem(bundle),
        ALPNProtocols: ['h2'],
        checkServerIdentity: (_, { raw }) => {
          verifySvid([raw], () => bundle, { now: Date.now(), match })
          return undefined
        },
        ...own,
      }),
  })
  const baseUrl = 'https://broker.test'
  const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors })
  const client = createClient(API, transport)
  return { client, [Symbol.dispose]: () => sessionManager[Symbol.dispose]() }
}

const byPid = (pid: number) => ({
  reference: {
    reference: anyPack(WorkloadPIDReferenceSchema, create(WorkloadPIDReferenceSchema, { pid })),
  },
})

async function first<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const message of stream) return message
  throw new Error('the stream ended')
}

async function refusal(promise: Promise<unknown>) {
  const error = await promise.then(
    () => new Error('it succeeded'),
    (reason: unknown) => reason,
  )
  if (!(error instanceof ConnectError)) throw error
  const [info] = error.findDetails(ErrorInfoSchema)
  return { code: error.code, reason: info?.reason, domain: info?.domain }
}

describe('Broker API', () => {
  it('BR-1 BR-9 BR-15 gives the identities of the workload that is referred to, by mutual TLS', async () => {
    using broker = open('/broker')
    const reference = byPid(process.pid)
    const x509 = await first(broker.client.subscribeToX509SVID(reference, { signal: signal() }))
    expect(x509.svids.map(({ spiffeId }) => spiffeId).toSorted()).toEqual([
      idOf('/broker'),
      idOf('/other'),
    ])
    const bundles = await first(
      broker.client.subscribeToX509Bundles(reference, { signal: signal() }),
    )
    expect(Object.keys(bundles.bundles)).toEqual([`spiffe://${trustDomain}`])
    const jwks = await first(broker.client.subscribeToJWTBundles(reference, { signal: signal() }))
    expect(Object.keys(jwks.bundles)).toEqual([`spiffe://${trustDomain}`])
    const { svids } = await broker.client.fetchJWTSVID({
      ...reference,
      audience: ['db'],
      spiffeId: idOf('/other'),
    })
    expect(svids.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/other')])
  })

  it('BR-8 refuses who is no broker, and who has no certificate', async () => {
    using other = open('/other')
    const denied = first(other.client.subscribeToX509SVID(byPid(process.pid), { signal: signal() }))
    expect((await refusal(denied)).code).toBe(Code.PermissionDenied)
    using anonymous = open(undefined)
    const nobody = anonymous.client.fetchJWTSVID({ ...byPid(process.pid), audience: ['db'] })
    await expect(nobody).rejects.toThrow()
  })

  it('BR-14 demands its header', async () => {
    for (const value of [undefined, 'True', '1']) {
      const wrong: Interceptor = (next) => (request) => {
        if (value !== undefined) request.header.set('broker.spiffe.io', value)
        return next(request)
      }
      using broker = open('/broker', [wrong])
      const call = broker.client.fetchJWTSVID({ ...byPid(process.pid), audience: ['db'] })
      expect((await refusal(call)).code).toBe(Code.InvalidArgument)
    }
  })

  it('BR-2 BR-3 BR-5 refuses references that are missing, unknown, or to no process', async () => {
    using broker = open('/broker')
    const invalid = {
      code: Code.InvalidArgument,
      reason: 'WORKLOAD_REFERENCE_INVALID',
      domain: 'spiffe.io',
    }
    const unknown = { typeUrl: 'type.googleapis.com/example.Unknown', value: new Uint8Array() }
    // well said, but this agent has no kubelet to ask
    const pod = anyPack(
      KubernetesObjectReferenceSchema,
      create(KubernetesObjectReferenceSchema, {
        type: { plural: 'pods', group: 'core' },
        uid: 'x',
      }),
    )
    const wrong = [
      {},
      { reference: {} },
      { reference: { reference: unknown } },
      { reference: { reference: pod } },
      byPid(0),
      byPid(-7),
    ]
    for (const request of wrong) {
      const call = broker.client.fetchJWTSVID({ ...request, audience: ['db'] })
      expect(await refusal(call)).toEqual(invalid)
    }
  })

  it('BR-11 BR-12 says that a workload is not there, or has nothing; and ends when it ends', async () => {
    using broker = open('/broker')
    const ended = spawn('true')
    await once(ended, 'exit')
    const gone = broker.client.fetchJWTSVID({ ...byPid(ended.pid ?? 0), audience: ['db'] })
    expect(await refusal(gone)).toEqual({
      code: Code.NotFound,
      reason: 'WORKLOAD_NOT_FOUND',
      domain: 'spiffe.io',
    })
    const child = spawn('sleep', ['600'])
    await once(child, 'spawn')
    const stream = broker.client.subscribeToX509SVID(byPid(child.pid ?? 0), { signal: signal() })
    const messages = stream[Symbol.asyncIterator]()
    await messages.next()
    child.kill('SIGKILL')
    expect((await refusal(messages.next())).reason).toBe('WORKLOAD_NOT_FOUND')
  })

  it('BR-4 BR-9 what a reference says is found out here: another process has what is its own', async () => {
    using broker = open('/broker')
    const child = spawn('sleep', ['600'])
    await once(child, 'spawn')
    const { pid = 0 } = child
    const program = `unix:path:${readlinkSync(`/proc/${pid}/exe`)}`
    const entry = await node.register('/sleeper', [uid, program])
    const idsOf = async (message: ReturnType<typeof byPid>, id: string) => {
      for await (const { svids } of broker.client.subscribeToX509SVID(message, {
        signal: signal(),
      })) {
        const ids = svids.map(({ spiffeId }) => spiffeId)
        if (ids.includes(id)) return ids
      }
      throw new Error('the stream ended')
    }
    expect(await idsOf(byPid(pid), idOf('/sleeper'))).toContain(idOf('/other'))
    expect(await idsOf(byPid(process.pid), idOf('/other'))).not.toContain(idOf('/sleeper'))
    child.kill('SIGKILL')
    await createClient(Entry, node.local).batchDeleteEntry({ ids: [entry] })
  })

  it('BR-10 BR-13 each message is the whole state, the first one at once; hints are unique', async () => {
    using broker = open('/broker')
    const stop = new AbortController()
    const stream = broker.client.subscribeToX509SVID(byPid(process.pid), { signal: stop.signal })
    const messages = stream[Symbol.asyncIterator]()
    const before: SubscribeToX509SVIDResponse = (await messages.next()).value
    expect(before.svids).toHaveLength(2)
    const more = ['/hinted-1', '/hinted-2'].map((path) => ({
      spiffeId: { trustDomain, path },
      parentId: { trustDomain, path: '/node' },
      selectors: [{ type: 'unix', value: uid.slice('unix:'.length) }],
      hint: path,
    }))
    const entries = createClient(Entry, node.local)
    const { results } = await entries.batchCreateEntry({ entries: more })
    let after = before
    while (after.svids.length < 4) after = (await messages.next()).value
    const known = before.svids.map(({ spiffeId }) => spiffeId)
    expect(after.svids.map(({ spiffeId }) => spiffeId)).toEqual(expect.arrayContaining(known))
    const hints = after.svids.map(({ hint }) => hint).filter((hint) => hint !== '')
    expect(hints.toSorted()).toEqual(['/hinted-1', '/hinted-2'])
    stop.abort()
    await entries.batchDeleteEntry({ ids: results.map(({ entry }) => entry?.id ?? '') })
  })

  it('BR-18 its socket and folder are its owner’s alone', () => {
    const modes = [socket(), dirname(socket())].map((path) => statSync(path).mode & 0o777)
    expect(modes).toEqual([0o600, 0o700])
  })
})

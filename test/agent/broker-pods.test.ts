// The Broker API and pods: references to Kubernetes objects, at a kubelet that answers what was recorded.
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createHttp2Sessions } from '../../client/http2-sessions.ts'
import { connectTls } from '../../client/tls-connect.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { ErrorInfoSchema } from '../../proto/gen/google/rpc/error_details_pb.js'
import { API, KubernetesObjectReferenceSchema } from '../../proto/gen/spiffe/broker/api_pb.js'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { freePort } from '../support/ports.ts'
import { podUid, serving, vector } from './attest/recorded.ts'

type ObjectReference = MessageInitShape<typeof KubernetesObjectReferenceSchema>

const uid = `unix:uid:${process.getuid?.()}`
const idOf = (path: string) => `spiffe://${trustDomain}${path}`
const signal = () => AbortSignal.timeout(60_000)
const headers = { 'broker.spiffe.io': 'true' }

const type = { plural: 'pods', group: 'core' }
const key = { namespace: 'shop', name: 'web-6d4cf56db6-x2lmz' }
const web = podUid('web')

let pods = vector('kubelet-pods.json')
let kubelet: Awaited<ReturnType<typeof serving>>
let node: TestNode
let port: number
beforeAll(async () => {
  kubelet = await serving((_, response) => response.end(pods))
  port = await freePort()
  node = await startNode({
    agent: {
      incubating: true,
      attestors: { unix: {}, kubernetes: { kubelet: kubelet.url } },
      broker: { listen: `127.0.0.1:${port}`, brokers: [idOf('/broker')] },
    },
  })
  await node.register('/broker', [uid])
  await node.register('/web', ['k8s:ns:shop', 'k8s:sa:web'])
  await node.register('/container', ['k8s:sa:web', 'k8s:container-name:web'])
}, 120_000)
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await kubelet[Symbol.asyncDispose]()
})

/** As the broker. */
async function connect() {
  await using undo = new AsyncDisposableStack()
  const source = undo.use(startX509Source({ kind: 'unix', path: node.agent.socket }))
  const { socket } = await connectTls(source, {
    ...{ host: '127.0.0.1', port, protocols: ['h2'], signal: signal() },
    accept: (id) => (id.startsWith(idOf('/spire/agent/')) ? undefined : 'it is no agent'),
  })
  const baseUrl = 'https://broker.test'
  const sessionManager = undo.use(createHttp2Sessions(baseUrl, { createConnection: () => socket }))
  const client = createClient(API, createGrpcTransport({ baseUrl, sessionManager }))
  const all = undo.move()
  return { client, [Symbol.asyncDispose]: () => all.disposeAsync() }
}

const to = (object: ObjectReference) => ({
  reference: {
    reference: anyPack(
      KubernetesObjectReferenceSchema,
      create(KubernetesObjectReferenceSchema, object),
    ),
  },
})

it('BR-7 BR-9 a pod has what its containers have in common, by UID, by name, or by both', async () => {
  await using broker = await connect()
  for (const object of [
    { type, uid: web },
    { type, key },
    { type, key, uid: web },
  ]) {
    const call = broker.client.fetchJWTSVID({ ...to(object), audience: ['db'] }, { headers })
    const { svids } = await call
    expect(svids.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/web')])
  }
})

it.each<readonly [string, ObjectReference, Code, string]>([
  ['no type', { uid: web }, Code.InvalidArgument, 'INVALID'],
  ['no plural', { type: { group: 'core' }, uid: web }, Code.InvalidArgument, 'INVALID'],
  ['no group', { type: { plural: 'pods' }, uid: web }, Code.InvalidArgument, 'INVALID'],
  [
    'another type',
    { type: { plural: 'deployments', group: 'apps' }, key },
    Code.InvalidArgument,
    'INVALID',
  ],
  ['neither key nor UID', { type }, Code.InvalidArgument, 'INVALID'],
  ['no namespace', { type, key: { name: key.name } }, Code.InvalidArgument, 'INVALID'],
  ['no name', { type, key: { namespace: 'shop' } }, Code.InvalidArgument, 'INVALID'],
  ['another UID than that of its name', { type, key, uid: podUid('late') }, Code.NotFound, 'FOUND'],
  ['a pod of another node', { type, uid: podUid('elsewhere') }, Code.NotFound, 'FOUND'],
  ['a pod without an entry', { type, uid: podUid('late') }, Code.PermissionDenied, 'ENTITLED'],
])('BR-7 BR-11 a reference with %s is refused', async (_, object, code, reason) => {
  await using broker = await connect()
  const call = broker.client.fetchJWTSVID({ ...to(object), audience: ['db'] }, { headers })
  const error = ConnectError.from(await call.catch((problem: unknown) => problem))
  expect(Code[error.code]).toBe(Code[code])
  const reasons = error.findDetails(ErrorInfoSchema).map((it) => it.reason)
  expect(reasons).toEqual([expect.stringMatching(new RegExp(`^WORKLOAD_.*_${reason}$`))])
})

it('BR-10 BR-12 a stream has the state at once, and ends when the pod is gone', async () => {
  await using broker = await connect()
  const stream = broker.client.subscribeToX509SVID(to({ type, key }), { headers, signal: signal() })
  const messages = stream[Symbol.asyncIterator]()
  const first: { svids: readonly { spiffeId: string }[] } = (await messages.next()).value
  expect(first.svids.map(({ spiffeId }) => spiffeId)).toEqual([idOf('/web')])
  const before = pods
  pods = JSON.stringify({ items: [] })
  try {
    const error = ConnectError.from(await messages.next().catch((problem: unknown) => problem))
    expect(error.code).toBe(Code.NotFound)
  } finally {
    pods = before
  }
})

// Workloads that stand still, or do not read what they asked for: what the agent holds for them, whom they hold
// up, and what they have when they go on.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { openTransport } from '../../../client/transport.ts'
import { startX509Source, type X509Source } from '../../../client/x509-source.ts'
import { AgentAdmin } from '../../../proto/gen/castellan/workload/v1/admin_pb.js'
import {
  DiscoveryRequestSchema,
  DiscoveryResponseSchema,
} from '../../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import { X509SVIDResponseSchema } from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { splitDer } from '../../../spiffe/certificate.ts'
import {
  frame,
  grpcFields,
  messagesIn,
  opening,
  request,
  types,
  workloadFields,
} from '../../support/frames.ts'
import { createHurriedClock } from '../../support/hurried-clock.ts'
import { startNode, type TestNode } from '../../support/node.ts'
import { hasPerl } from '../../support/perl.ts'
import { startTalker } from '../../support/talker.ts'
import { typeUrl } from '../xds/sds-client.ts'

const uid = `unix:uid:${process.getuid?.()}`
const patience = { timeout: 60_000, interval: 50 }
const fetchX509 = (stream: number) => request(stream, workloadFields('FetchX509SVID'))
const streamSecrets = (stream: number) =>
  request(
    stream,
    grpcFields('/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets'),
    toBinary(DiscoveryRequestSchema, create(DiscoveryRequestSchema, { typeUrl })),
  )

async function unreadOf({ agent }: TestNode) {
  using admin = openTransport({ kind: 'unix', path: agent.adminSocket })
  const { unread } = await createClient(AgentAdmin, admin.transport).getStatus({})
  return unread.map(({ pid, method }) => ({ pid, method }))
}

/** Resolves once the source is told of something for which `is` holds. */
async function told(source: X509Source, is: () => boolean): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  using _ = source.subscribe(() => is() && resolve())
  if (is()) resolve()
  await promise
}

const leavesOf = (message: Uint8Array) =>
  fromBinary(X509SVIDResponseSchema, message).svids.map(({ x509Svid }) =>
    Buffer.from(splitDer(x509Svid)[0] ?? []).toString('hex'),
  )

const clock = createHurriedClock()
let node: TestNode
/** a workload as it should be */
let source: X509Source
beforeAll(async () => {
  node = await startNode({ clock })
  await node.register('/web', [uid])
  source = startX509Source({ kind: 'unix', path: node.agent.socket })
  await source.ready(AbortSignal.timeout(60_000))
}, 120_000)
afterAll(async () => {
  await source[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})

const newestLeaf = () => Buffer.from(source.current()?.svids[0].chain[0] ?? []).toString('hex')
const countOfSvids = () => source.current()?.svids.length ?? 0

describe.skipIf(!hasPerl)('a workload', () => {
  it('that does not read has one message waiting, of each stream, and then the newest', async () => {
    await using slow = startTalker(node.agent.socket)
    // less than a message
    slow.send(Buffer.concat([opening(1000), fetchX509(1), streamSecrets(3)]))
    await slow.readUntil((frames) =>
      [1, 3].every((stream) => frames.some((it) => it.type === types.data && it.stream === stream)),
    )
    for (let count = 2; count <= 10; count++) {
      await node.register(`/web-${count}`, [uid])
      await told(source, () => countOfSvids() === count)
    }
    const window = Buffer.from('7fff0000', 'hex')
    for (const stream of [1, 3]) slow.send(frame(types.windowUpdate, 0, stream, window))
    const svids = (it: Uint8Array) => fromBinary(X509SVIDResponseSchema, it).svids.length
    const secrets = (it: Uint8Array) =>
      // one of them is the bundle
      fromBinary(DiscoveryResponseSchema, it).resources.length - 1
    const frames = await slow.readUntil(
      (all) =>
        messagesIn(all, 1).some((it) => svids(it) === 10) &&
        messagesIn(all, 3).some((it) => secrets(it) === 10),
    )
    expect([messagesIn(frames, 1).map(svids), messagesIn(frames, 3).map(secrets)]).toEqual([
      [1, 10],
      [1, 10],
    ])
  }, 60_000)

  it('that is stopped holds up no others, a rotation for half a minute, and has the newest when it goes on', async () => {
    await using stopped = startTalker(node.agent.socket)
    // room for as many messages as there may be: it never asks for more
    stopped.send(Buffer.concat([opening(2 ** 24), fetchX509(1)]))
    await stopped.messages(1, 1)
    await stopped.stop()

    const operator = createClient(LocalAuthority, node.local)
    const before = (await operator.getX509AuthorityState({})).active?.authorityId ?? ''
    const next = (await operator.prepareX509Authority({})).preparedAuthority?.authorityId ?? ''
    await told(source, () => source.bundles()[0]?.authorities.length === 2)
    const activate = () => operator.activateX509Authority({ authorityId: next })
    await expect(activate()).rejects.toThrow('the bundle in force is not acknowledged by')
    expect(await unreadOf(node)).toEqual([])
    clock.skip(31_000)
    await vi.waitFor(activate, patience)
    expect(await unreadOf(node)).toEqual([
      { pid: stopped.pid, method: 'SpiffeWorkloadAPI/FetchX509SVID' },
    ])

    const old = newestLeaf()
    await operator.taintX509Authority({ authorityId: before })
    await vi.waitFor(
      () => {
        // agents spread their renewals over half a minute; an authority that is heard no more is left after one
        clock.skip(10_000)
        expect(newestLeaf()).not.toBe(old)
      },
      { timeout: 120_000, interval: 2000 },
    )
    stopped.goOn()
    await stopped.readUntil((frames) =>
      messagesIn(frames, 1).some((it) => leavesOf(it).includes(newestLeaf())),
    )
    await vi.waitFor(async () => expect(await unreadOf(node)).toEqual([]), patience)
  }, 240_000)

  it('that does not read for five minutes is cut off; others go on', async () => {
    await using slow = startTalker(node.agent.socket)
    slow.send(Buffer.concat([opening(100), fetchX509(1)]))
    await slow.readUntil((frames) => frames.some(({ type }) => type === types.data))
    clock.skip(31_000)
    await vi.waitFor(async () => expect(await unreadOf(node)).toHaveLength(1), patience)
    clock.skip(300_000)
    await slow.readAll()
    expect(await unreadOf(node)).toEqual([])
    const before = countOfSvids()
    await node.register('/more', [uid])
    await told(source, () => countOfSvids() > before)
  }, 120_000)
})

// A program that calls in a loop: it is told to slow down, its streams go on, and other users notice nothing.
import { chmodSync } from 'node:fs'
import { fromBinary } from '@bufbuild/protobuf'
import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../../client/transport.ts'
import { startX509Source } from '../../../client/x509-source.ts'
import { RetryInfoSchema } from '../../../proto/gen/google/rpc/error_details_pb.js'
import {
  SpiffeWorkloadAPI,
  X509SVIDResponseSchema,
} from '../../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { opening, request, workloadFields } from '../../support/frames.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'
import { canBeOthers } from '../../support/perl.ts'
import { startTalker } from '../../support/talker.ts'

const other = 20_002

let node: TestNode
beforeAll(async () => {
  // so slow that nothing is filled up again while this test runs
  const limits = { callsAtOnce: 20, callsPerSecond: 1 }
  node = await startNode({ agent: { limits } })
  chmodSync(node.folder, 0o755)
  await node.register('/loop', [`unix:uid:${process.getuid?.()}`])
  await node.register('/other', [`unix:uid:${other}`])
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

describe('a user that calls too often', () => {
  it('is answered ResourceExhausted with a delay; its open streams go on', async () => {
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    await source.ready(AbortSignal.timeout(60_000))
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    const client = createClient(SpiffeWorkloadAPI, local.transport)
    const calls = Array.from({ length: 1000 }, () =>
      client.validateJWTSVID({}).then(
        () => new ConnectError('it succeeded'),
        (error: unknown) => ConnectError.from(error),
      ),
    )
    const errors = await Promise.all(calls)
    const served = errors.filter(({ code }) => code === Code.InvalidArgument)
    const refused = errors.filter(({ code }) => code === Code.ResourceExhausted)
    expect(served.length + refused.length).toBe(1000)
    expect(refused.length).toBeGreaterThan(900)
    const [first] = refused
    expect(first?.rawMessage).toBe(
      `user ${process.getuid?.()} calls more often than 1 times a second`,
    )
    expect(first?.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBe(1n)

    const told = Promise.withResolvers<void>()
    using _ = source.subscribe((context) => context?.svids.length === 2 && told.resolve())
    await node.register('/more', [`unix:uid:${process.getuid?.()}`])
    await told.promise
  }, 60_000)

  it.skipIf(!canBeOthers)(
    'takes nothing from other users',
    async () => {
      await using talker = startTalker(node.agent.socket, { uid: other })
      talker.send(Buffer.concat([opening(), request(1, workloadFields('FetchX509SVID'))]))
      const [message] = await talker.messages(1, 1)
      const { svids } = fromBinary(X509SVIDResponseSchema, message ?? new Uint8Array())
      expect(svids.map(({ spiffeId }) => spiffeId)).toEqual([`spiffe://${trustDomain}/other`])
    },
    60_000,
  )
})

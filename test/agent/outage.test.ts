// The authority goes away, the agent is restarted: workloads keep what they have, and get new ones after.
import { createClient } from '@connectrpc/connect'
import { expect, it } from 'vitest'
import { openTransport } from '../../client/transport.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { agentStatus } from '../support/agent-status.ts'
import { startNode } from '../support/node.ts'

const uid = `unix:uid:${process.getuid?.()}`

it('a live stream survives the authority; a new entry arrives once it is back; a restarted agent resumes without a token', async () => {
  await using node = await startNode()
  await node.register('/before', [uid])
  await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
  const signal = AbortSignal.timeout(120_000)
  const before = await source.ready(signal)
  const agentId = await agentStatus(node.agent.adminSocket).then((status) => status.agentId)

  await node.stopAuthority()
  expect(source.current()).toBe(before)
  const away = Promise.withResolvers<void>()
  void watch(node.agent.adminSocket, signal, ({ connected }) => !connected, away.resolve)
  await away.promise
  expect(source.current()?.svids[0].serial).toBe(before.svids[0].serial)

  await node.startAuthority()
  const back = Promise.withResolvers<void>()
  void watch(node.agent.adminSocket, signal, ({ connected }) => connected, back.resolve)
  await back.promise

  await node.restartAgent()
  expect((await agentStatus(node.agent.adminSocket)).agentId).toBe(agentId)
  await using again = startX509Source({ kind: 'unix', path: node.agent.socket })
  const after = await again.ready(signal)
  expect(after.svids.map(({ id }) => id)).toEqual(before.svids.map(({ id }) => id))
}, 240_000)

async function watch(
  path: string,
  signal: AbortSignal,
  holds: (status: { connected: boolean }) => boolean,
  done: () => void,
) {
  using local = openTransport({ kind: 'unix', path })
  for await (const status of createClient(AgentAdmin, local.transport).watchStatus(
    {},
    { signal },
  )) {
    if (!holds(status)) continue
    done()
    return
  }
}

// An agent whose authority is not what it was: other roots while it was away, a ban, and what is left on its disk.
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startX509Source } from '../../client/x509-source.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { agentStatus } from '../support/agent-status.ts'
import { rootsOf } from '../support/ca-client.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'

const uid = `unix:uid:${process.getuid?.()}`
const patience = { timeout: 150_000, interval: 500 }

let node: TestNode
beforeAll(async () => {
  node = await startNode()
  await node.register('/web', [uid])
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

const status = () => agentStatus(node.agent.adminSocket)

async function newToken(): Promise<void> {
  const agentId = { trustDomain, path: '/node' }
  const { value } = await createClient(Agent, node.local).createJoinToken({ ttl: 600, agentId })
  writeFileSync(join(node.folder, 'token'), value)
}

/** Another X.509 authority, and nothing left of the one before. */
async function replaceAuthority(): Promise<void> {
  const operator = createClient(LocalAuthority, node.local)
  const old = (await operator.getX509AuthorityState({})).active?.authorityId ?? ''
  const next = (await operator.prepareX509Authority({})).preparedAuthority?.authorityId ?? ''
  // the agent counts as connected for a while after it was stopped
  await vi.waitFor(() => operator.activateX509Authority({ authorityId: next }), patience)
  await operator.taintX509Authority({ authorityId: old })
  await vi.waitFor(() => operator.revokeX509Authority({ authorityId: old }), patience)
}

describe('an agent', () => {
  it('that was away while all roots changed finds the new ones by its configuration, and joins again', async () => {
    const before = (await status()).agentId
    await node.stopAgent()
    await replaceAuthority()
    writeFileSync(join(node.folder, 'bundle.pem'), await rootsOf(node.authority.socket))
    await newToken()
    await node.startAgent()
    await vi.waitFor(async () => {
      const now = await status()
      expect([now.connected, now.trouble]).toEqual([true, ''])
      expect(now.agentId).not.toBe(before)
    }, patience)
    await using source = startX509Source({ kind: 'unix', path: node.agent.socket })
    const { svids } = await source.ready(AbortSignal.timeout(60_000))
    expect(svids.map(({ id }) => id)).toEqual([`spiffe://${trustDomain}/web`])
  }, 400_000)

  it('that is banned ends, says what to do, and leaves nothing of its workloads on the disk', async () => {
    const kept = ['identity', 'knowledge', 'identities'].map((it) =>
      join(node.folder, 'agent', `${it}.sealed`),
    )
    await vi.waitFor(
      () => expect(kept.map((it) => existsSync(it))).toEqual([true, true, true]),
      patience,
    )
    const { agents } = await createClient(Agent, node.local).listAgents({})
    const own = (await status()).agentId
    const id = agents.map((it) => it.id).find((it) => own.endsWith(it?.path ?? '-'))
    const ended = expect(node.agent.done).rejects.toThrow('this agent is banned')
    await createClient(Agent, node.local).banAgent({ ...(id === undefined ? {} : { id }) })
    await ended
    await node.stopAgent()
    expect(kept.map((it) => existsSync(it))).toEqual([false, false, false])
  }, 200_000)
})

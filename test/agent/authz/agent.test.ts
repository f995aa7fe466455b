// The decision socket of a real agent: who asks is attested, and what was decided is known at the node and at
// the authority.
import { renameSync } from 'node:fs'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport } from '../../../client/transport.ts'
import { Policies } from '../../../proto/gen/castellan/policy/v1/policies_pb.js'
import { Authorization } from '../../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { castellan } from '../../support/command.ts'
import { startNode, type TestNode } from '../../support/node.ts'
import { policyText } from '../../support/policy-text.ts'
import { freePort } from '../../support/ports.ts'
import { rpc } from './asking.ts'
import { payments } from './deciding.ts'

const patience = { timeout: 60_000 }
let node: TestNode
let local: ReturnType<typeof openTransport>
let port: number
beforeAll(async () => {
  port = await freePort()
  const agent = { operations: `127.0.0.1:${port}`, decisions: { socket: 'run/authz.sock' } }
  node = await startNode({ agent })
  local = openTransport({ kind: 'unix', path: `${node.folder}/run/authz.sock` })
}, 120_000)
afterAll(async () => {
  local[Symbol.dispose]()
  await node[Symbol.asyncDispose]()
})

const codeOf = async (path: string) =>
  (await createClient(Authorization, local.transport).check(rpc(path))).status?.code

it('denies who has no entry; an entry and policies let it pass', async () => {
  expect(await codeOf('/ok')).toBe(7)
  await node.register('/ns/shop/sa/payments', [`unix:uid:${process.getuid?.()}`])
  const text = policyText('[{ to: [{ operation: { paths: [/ok] } }] }]')
  await createClient(Policies, node.local).applyPolicies({ files: [{ name: 'shop.yaml', text }] })
  await expect.poll(() => codeOf('/ok'), patience).toBe(0)
  expect(await codeOf('/secret')).toBe(7)
})

it('apply --wait waits for it, and tells why it refuses', async () => {
  const text = policyText('[{ to: [{ operation: { paths: [/ok, /next] } }] }]')
  const client = createClient(Policies, node.local)
  const { version } = await client.applyPolicies({ files: [{ name: 'shop.yaml', text }] })
  const signal = AbortSignal.timeout(60_000)
  for await (const status of client.watchEnforcement({ version }, { signal })) {
    if (status.points > 0 && status.acknowledged === status.points) break
  }
  // in force means that the very next question is decided by it
  expect(await codeOf('/next')).toBe(0)
})

it('what was decided is in metrics and tables of the node', async () => {
  const metrics = async () => await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  await expect
    .poll(metrics, patience)
    .toMatch(
      /castellan_decisions_total\{source="",destination="spiffe:..example.org.ns.shop.sa.payments",outcome="allowed",policy="shop.test",rule="0"\}/,
    )
  const flows = async () =>
    (await castellan(['agent', 'flows', '--admin-socket', node.agent.adminSocket])).stdout
  await expect.poll(flows, patience).toMatch(new RegExp(`${payments} +denied`))
})

const status = (...args: string[]) =>
  castellan(['agent', 'status', '--admin-socket', node.agent.adminSocket, ...args])
const decisions = async () => JSON.parse((await status('-o', 'json')).stdout).decisions

describe('castellan agent status', () => {
  const socket = () => `${node.folder}/run/authz.sock`

  it('shows by which policies it decides, who is connected, and what was decided', async () => {
    const { version } = await createClient(Policies, node.local).getPolicies({})
    expect(await decisions()).toMatchObject({
      ...{ socket: socket(), phase: 'listening', policyVersion: Number(version), refusal: '' },
      ...{ connections: 1, processes: 1 },
    })
    const before = await decisions()
    expect([await codeOf('/ok'), await codeOf('/secret')]).toEqual([0, 7])
    // what was asked before this test may be told with it
    const counted = async () => {
      const { allowed, denied } = await decisions()
      return allowed > before.allowed && denied > before.denied
    }
    await expect.poll(counted, patience).toBe(true)
    const { stdout } = await status()
    expect(stdout).toMatch(
      new RegExp(`${socket()} +${version} +1 of 1 process +\\d+ +\\d+ +as it should be`),
    )
  })

  it('shows that its file was taken away, and what to do', async () => {
    renameSync(socket(), `${socket()}.aside`)
    expect((await decisions()).phase).toBe('lost')
    expect((await status()).stdout).toContain('nobody can connect: restart the agent')
    renameSync(`${socket()}.aside`, socket())
    expect((await decisions()).phase).toBe('listening')
  })
})

it('answers again after the agent was restarted, over the same path', async () => {
  await node.restartAgent()
  await expect.poll(() => codeOf('/ok').catch(() => undefined), patience).toBe(0)
})

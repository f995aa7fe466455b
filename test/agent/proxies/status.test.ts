// `agent status` says why a proxy that has a spec is not there.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { DenyRules } from '../../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { castellan } from '../../support/command.ts'
import { testFolder } from '../../support/folder.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'

const id = `spiffe://${trustDomain}/ns/shop/sa/web`
const patience = { timeout: 60_000 }

let node: TestNode
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const file = join(stack.use(testFolder()).path, 'web.yaml')
  const inbound = [{ listen: '127.0.0.1:15006', protocol: 'http', forwardTo: '127.0.0.1:8080' }]
  writeFileSync(file, stringify({ identity: id, inbound, outbound: [] }))
  node = stack.use(await startNode({ agent: { proxies: [{ spec: file, driver: 'envoy' }] } }))
})
afterAll(() => stack.disposeAsync())

const status = async () => {
  const command = ['agent', 'status', '--admin-socket', node.agent.adminSocket]
  const { stdout } = await castellan(command)
  return stdout.split('\n').find((line) => line.startsWith(id))
}

it('an identity that nobody is registered for, one whose proxy is off, and one that is denied', async () => {
  expect(await status()).toMatch(/web\.yaml: not connected: no entry of this node/)
  await node.register('/ns/shop/sa/web', ['unix:uid:4711'])
  await expect.poll(status, patience).toMatch(/web\.yaml: not connected *$/)
  const rule = { target: { case: 'spiffeId', value: id }, reason: 'a drill' } as const
  const rules = createClient(DenyRules, node.local)
  const { id: denial } = await rules.addRule({ rule })
  await expect.poll(status, patience).toMatch(/not connected: its identity is on the deny-list/)
  await rules.removeRule({ id: denial })
  await expect.poll(status, patience).toMatch(/web\.yaml: not connected *$/)
})

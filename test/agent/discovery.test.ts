// A service that a sidecar of one node serves, found by a sidecar of another one through their authority.
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { stringify } from 'yaml'
import { loadAgentConfig } from '../../agent/config.ts'
import { type RunningAgent, runAgent } from '../../agent/main.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { startProxy } from '../../proxy/main.ts'
import { loadProxySpec } from '../../proxy-spec/spec.ts'
import { createLog } from '../../runtime/log.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'

const log = createLog({ name: 'test', level: process.env.TEST_LOG ?? 'silent' })
const serverId = `spiffe://${trustDomain}/ns/shop/sa/web`
const callerId = `spiffe://${trustDomain}/ns/shop/sa/caller`
const impostorId = `spiffe://${trustDomain}/ns/shop/sa/impostor`
const patience = { timeout: 60_000, interval: 100 }
const stop = new AbortController()

let node: TestNode
let other: RunningAgent
let backend: ReturnType<typeof createServer>

/** A second agent of the node's authority, on a folder of its own. */
async function startSecond(): Promise<RunningAgent> {
  const folder = join(node.folder, 'second')
  mkdirSync(folder)
  const agentId = { trustDomain, path: '/second' }
  const token = await createClient(Agent, node.local).createJoinToken({ ttl: 600, agentId })
  writeFileSync(join(folder, 'token'), token.value)
  const content = {
    trustDomain,
    authority: { address: `127.0.0.1:${node.authority.port}`, bundle: '../bundle.pem' },
    ...{ joinTokenFile: 'token', state: 'agent', socket: 'run/agent.sock' },
    adminSocket: 'admin/agent-admin.sock',
  }
  writeFileSync(join(folder, 'agent.yaml'), stringify(content))
  return runAgent(loadAgentConfig(join(folder, 'agent.yaml')), { log, signal: stop.signal })
}

const selectors = [{ type: 'unix', value: `uid:${process.getuid?.()}` }]

async function registerAt(parent: string, path: string): Promise<void> {
  const entry = {
    spiffeId: { trustDomain, path },
    parentId: { trustDomain, path: parent },
    selectors,
  }
  await createClient(Entry, node.local).batchCreateEntry({ entries: [entry] })
}

function startSidecar(socket: string, identity: string, listeners: object) {
  const file = join(node.folder, `${identity.split('/').at(-1)}.yaml`)
  writeFileSync(file, stringify({ workloadApi: `unix://${socket}`, identity, ...listeners }))
  return startProxy({ spec: loadProxySpec(file), log })
}

function serving(identity: string) {
  const bound = backend.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  const inbound = [
    {
      ...{ name: 'web', listen: '127.0.0.1:0', protocol: 'http', service: 'shop' },
      forwardTo: `127.0.0.1:${port}`,
    },
  ]
  return startSidecar(node.agent.socket, identity, { inbound })
}

function ask(port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  request({ host: '127.0.0.1', port, path: '/', agent: false }, (response) => {
    response.resume()
    resolve(response.statusCode ?? 0)
  })
    .on('error', reject)
    .end()
  return promise
}

beforeAll(async () => {
  node = await startNode()
  backend = createServer((_, response) => void response.end()).listen(0, '127.0.0.1')
  await once(backend, 'listening')
  other = await startSecond()
  await registerAt('/node', '/ns/shop/sa/web')
  await registerAt('/node', '/ns/shop/sa/impostor')
  await registerAt('/second', '/ns/shop/sa/caller')
  const text = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: all, namespace: shop }
spec: { action: ALLOW, rules: [{}] }
`
  const files = [{ name: 'all.yaml', text }]
  await createClient(Policies, node.local).applyPolicies({ files })
})

afterAll(async () => {
  stop.abort()
  await other[Symbol.asyncDispose]()
  backend.close()
  await node[Symbol.asyncDispose]()
})

describe('a service', () => {
  it('is found where it is served by whom one expects, and no longer once nobody serves it', async () => {
    const outbound = { listen: '127.0.0.1:0', protocol: 'http', service: 'shop' }
    await using caller = await startSidecar(other.socket, callerId, {
      outbound: [
        { ...outbound, name: 'shop', expect: [serverId] },
        { ...outbound, name: 'impostor', expect: [impostorId] },
      ],
    })
    const [port = 0, toImpostor = 0] = caller.listeners.map((it) => it.port)
    expect(await ask(port)).toBe(502)
    {
      // somebody else says to serve it: nobody even connects there
      await using _ = await serving(impostorId)
      // the caller has been told of it: who expects it gets there
      await vi.waitFor(async () => expect(await ask(toImpostor)).toBe(200), patience)
      expect(await ask(port)).toBe(502)
      await using __ = await serving(serverId)
      await vi.waitFor(async () => expect(await ask(port)).toBe(200), patience)
      for (let i = 0; i < 8; i++) expect(await ask(port)).toBe(200)
    }
    await vi.waitFor(async () => expect(await ask(port)).toBe(502), patience)
    // elsewhere: another port
    await using _ = await serving(serverId)
    await vi.waitFor(async () => expect(await ask(port)).toBe(200), patience)
  }, 180_000)
})

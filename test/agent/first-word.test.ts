// What an agent that has just started tells sidecars and proxies first: they go on with what an earlier process told
// them, so it is never older than what the authority says.
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createClient, type Transport } from '@connectrpc/connect'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { openTransport } from '../../client/transport.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { Sidecar } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { AggregatedDiscoveryService } from '../../proto/gen/envoy/service/discovery/v3/ads_pb.js'
import { agentStatus } from '../support/agent-status.ts'
import { testFolder } from '../support/folder.ts'
import { startNode, type TestNode, trustDomain } from '../support/node.ts'
import { policyText } from '../support/policy-text.ts'

const routes = 'type.googleapis.com/envoy.config.route.v3.RouteConfiguration'
const patience = { timeout: 60_000, interval: 5 }

let node: TestNode
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const file = join(stack.use(testFolder()).path, 'web.yaml')
  const inbound = {
    ...{ name: 'web', listen: '127.0.0.1:15006', protocol: 'http', forwardTo: '127.0.0.1:8080' },
  }
  const identity = `spiffe://${trustDomain}/ns/shop/sa/web`
  writeFileSync(file, stringify({ identity, inbound: [inbound], outbound: [] }))
  const proxies = [{ spec: file, driver: 'envoy' }]
  const decisions = { socket: 'run/authz.sock' }
  node = stack.use(await startNode({ agent: { proxies, decisions } }))
  await node.register('/ns/shop/sa/web', [`unix:uid:${process.getuid?.()}`])
}, 120_000)
afterAll(() => stack.disposeAsync())

async function apply(path: string): Promise<bigint> {
  const text = policyText(`[{ to: [{ operation: { paths: [${path}] } }] }]`)
  const client = createClient(Policies, node.local)
  return (await client.applyPolicies({ files: [{ name: 'shop.yaml', text }] })).version
}

/** The stream stays open. */
async function firstOf<T>(stream: AsyncIterable<T>): Promise<T> {
  const { value, done } = await stream[Symbol.asyncIterator]().next()
  if (done === true) throw new Error('the stream ended')
  return value
}

async function* never(): AsyncGenerator<never> {
  await new Promise(() => {})
}

async function* asks() {
  yield { typeUrl: routes, resourceNames: ['inbound/web'] }
  yield* never()
}

/** The version of the policies in the first message to a sidecar, and a path in that to an Envoy. */
async function firstWords(transport: Transport, signal: AbortSignal) {
  const sidecar = createClient(Sidecar, transport).subscribe(never(), { signal })
  const envoy = createClient(AggregatedDiscoveryService, transport)
  const [{ policies }, { resources }] = await Promise.all([
    firstOf(sidecar),
    firstOf(envoy.streamAggregatedResources(asks(), { signal })),
  ])
  const text = Buffer.concat(resources.map(({ value }) => value)).toString('latin1')
  return { version: policies?.version, path: /\/path-\d/.exec(text)?.[0] }
}

/** As whoever tries to reach the agent all the time is told; undefined while there is none. */
async function tellsFirst(): Promise<Awaited<ReturnType<typeof firstWords>> | undefined> {
  using local = openTransport({ kind: 'unix', path: node.agent.socket })
  const stop = new AbortController()
  try {
    return await firstWords(local.transport, stop.signal)
  } catch {
    return undefined
  } finally {
    stop.abort()
  }
}

async function untilTold(): Promise<unknown> {
  for (;;) {
    const words = await tellsFirst()
    if (words !== undefined) return words
  }
}

/** Takes connections, and never answers. */
async function startSilent(port: number) {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => socket.destroy())
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    count: () => sockets.length,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

it('is what the authority says now, or what it said last while it is away', async () => {
  const before = await apply('/path-1')
  await expect.poll(tellsFirst, patience).toEqual({ version: before, path: '/path-1' })
  await node.stopAgent()
  const after = await apply('/path-2')
  const [told] = await Promise.all([untilTold(), node.startAgent()])
  expect(told).toEqual({ version: after, path: '/path-2' })
  await node.stopAgent()
  await node.stopAuthority()
  await node.startAgent()
  expect(await untilTold()).toEqual({ version: after, path: '/path-2' })
  await node.stopAgent()
  // somebody is there, and says nothing
  await using silent = await startSilent(node.authority.port)
  await node.startAgent()
  expect(await untilTold()).toEqual({ version: after, path: '/path-2' })
  expect(silent.count()).toBeGreaterThan(0)
  const { decisions } = await agentStatus(node.agent.adminSocket)
  expect(decisions?.phase).toBe('listening')
}, 240_000)

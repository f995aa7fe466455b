// Where services are reached: what agents may say of that, and who is told.
import { createClient } from '@connectrpc/connect'
import { beforeAll, describe, expect, it } from 'vitest'
import { type AgentMessage, Control } from '../../proto/gen/castellan/control/v1/control_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { createLatest } from '../../runtime/lifecycle.ts'
import { parseSpiffeId, pathOf } from '../../spiffe/id.ts'
import { sharedCa } from '../support/shared-ca.ts'

const ca = sharedCa()
const trustDomain = 'example.org'
const web = 'spiffe://example.org/web'
const here = { service: 'shop', spiffeId: web, address: '192.0.2.1:8443' }
const there = { ...here, address: '[2001:db8::1]:8443' }

type Joined = Awaited<ReturnType<typeof ca.join>>
type Said = Omit<Extract<AgentMessage['message'], { case: 'services' }>['value'], '$typeName'>
type Endpoint = typeof here

let server: Joined
let client: Joined

async function register(path: string, parent: Joined): Promise<void> {
  const entry = {
    spiffeId: { trustDomain, path },
    parentId: { trustDomain, path: pathOf(parseSpiffeId(parent.id)) },
    selectors: [{ type: 'unix', value: 'uid:1000' }],
  }
  await ca.local.client(Entry).batchCreateEntry({ entries: [entry] })
}

/** A control stream of an agent: what it says, and the endpoints that it is told. */
function follow(agent: Joined) {
  const over = new AbortController()
  const connection = ca.remote(agent)
  const words = createLatest<object>(over.signal)
  const told: Endpoint[][] = []
  async function* saying() {
    yield { message: { case: 'hello' as const, value: {} } }
    for await (const value of words) yield { message: { case: 'services' as const, value } }
  }
  const client = createClient(Control, connection.transport)
  const done = (async () => {
    for await (const { endpoints } of client.subscribe(saying(), { signal: over.signal }))
      if (endpoints !== undefined)
        told.push(
          endpoints.endpoints.map(({ service, spiffeId, address }) => ({
            ...{ service, spiffeId, address },
          })),
        )
  })().catch((error: unknown) => error)
  return {
    told,
    say: (said: Partial<Record<keyof Said, unknown>>) => words.push({ whole: true, ...said }),
    async [Symbol.asyncDispose]() {
      over.abort()
      await done
      connection[Symbol.dispose]()
    },
  }
}

const eventually = (what: () => unknown, is: unknown) =>
  expect.poll(what, { timeout: 30_000, interval: 50 }).toEqual(is)

beforeAll(async () => {
  server = await ca.join()
  client = await ca.join()
  await register('/web', server)
  await register('/client', client)
})

describe('endpoints of services', () => {
  it('are told to those who look for them, in one order, and again after each change', async () => {
    await using serving = follow(server)
    await using looking = follow(client)
    looking.say({ wanted: ['shop'] })
    await eventually(() => looking.told.at(-1), [])
    serving.say({ served: [there, here, here] })
    await eventually(() => looking.told.at(-1), [here, there])
    const before = looking.told.length
    serving.say({ served: [there, here, { ...here, service: 'other' }] })
    serving.say({ served: [there] })
    await eventually(() => looking.told.at(-1), [there])
    expect(looking.told.length).toBeGreaterThan(before)
    looking.say({ wanted: [] })
    await eventually(() => looking.told.at(-1), [])
  })

  it('of an agent that has just begun are added to those that it had', async () => {
    {
      await using serving = follow(server)
      await using looking = follow(client)
      looking.say({ wanted: ['shop'] })
      serving.say({ served: [here] })
      await eventually(() => looking.told.at(-1), [here])
    }
    await using again = follow(server)
    await using looking = follow(client)
    looking.say({ wanted: ['shop'] })
    again.say({ served: [], whole: false })
    again.say({ served: [there], whole: false })
    await eventually(() => looking.told.at(-1), [here, there])
    again.say({ served: [there], whole: true })
    await eventually(() => looking.told.at(-1), [there])
  })

  it('are bound to identities that the agent may have, and to addresses', async () => {
    await using serving = follow(server)
    await using impostor = follow(client)
    await using looking = follow(server)
    looking.say({ wanted: ['shop'], served: [here] })
    serving.say({ served: [here] })
    await eventually(() => looking.told.at(-1), [here])
    impostor.say({
      served: [
        { ...here, address: '192.0.2.66:1' },
        { service: 'shop', spiffeId: 'spiffe://example.org/client', address: 'nowhere' },
        { service: 'a service', spiffeId: 'spiffe://example.org/client', address: '192.0.2.66:1' },
        { service: 'shop', spiffeId: 'spiffe://example.org/client', address: '192.0.2.66:2' },
      ],
    })
    const own = {
      service: 'shop',
      spiffeId: 'spiffe://example.org/client',
      address: '192.0.2.66:2',
    }
    await eventually(() => looking.told.at(-1), [here, own])
    expect(ca.lines.some((line) => line.includes('may not serve'))).toBe(true)
  })

  it('of a banned agent are nobody’s', async () => {
    const banned = await ca.join()
    await register('/banned', banned)
    const bad = { service: 'gone', spiffeId: 'spiffe://example.org/banned', address: '192.0.2.9:1' }
    await using looking = follow(client)
    looking.say({ wanted: ['gone'] })
    {
      await using serving = follow(banned)
      serving.say({ served: [bad] })
      await eventually(() => looking.told.at(-1), [bad])
      const id = { trustDomain, path: pathOf(parseSpiffeId(banned.id)) }
      await ca.local.client(Agent).banAgent({ id })
    }
    await eventually(() => looking.told.at(-1), [])
  })
})

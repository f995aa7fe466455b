import { Agent } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask } from '../support/local-call.ts'
import { contextFor, createTestSource, makeTestAuthority, stateOf } from '../support/mesh.ts'
import { inboundTo, outboundTo, payments, web } from '../support/shop.ts'
import {
  type App,
  dial,
  peerOptions,
  type Sidecar,
  startApp,
  startSidecar,
} from '../support/sidecar.ts'

// two generations of one trust domain: bundles overlap while roots change
const generations = [makeTestAuthority('td.example'), makeTestAuthority('td.example')] as const
const [former, latter] = generations

const both = {
  trustDomain: former.bundle.trustDomain,
  authorities: [...former.bundle.authorities, ...latter.bundle.authorities],
}
const patient = { timeout: 20_000 }
const contextOf = (id: string, generation: number) =>
  contextFor((generation % 2 === 0 ? former : latter).issue(id), both)

let app: App
let inbound: Sidecar
let outbound: Sidecar
const paymentsSource = createTestSource(contextOf(payments, 0))
const webSource = createTestSource(contextOf(web, 0))

beforeAll(async () => {
  app = await startApp((message, response) => message.pipe(response))
  inbound = await startSidecar(
    { inbound: [inboundTo(app.port)] },
    { source: paymentsSource, state: stateOf('[{}]') },
  )
  outbound = await startSidecar(
    { outbound: [outboundTo(`127.0.0.1:${inbound.port}`)] },
    { source: webSource, state: stateOf('[]') },
  )
})

afterAll(async () => {
  for (const it of [outbound, inbound, app]) await it[Symbol.asyncDispose]()
})

async function statusOf(agent: Agent, method: string): Promise<number | undefined> {
  const body = method === 'POST' ? 'body' : ''
  return (await ask(outbound.port, { agent, method, path: '/', body })).status
}

describe('rotation', () => {
  it('fails no request while both sides rotate under load', { timeout: 120_000 }, async () => {
    const rotations = 20
    const serials = new Set<string>()
    const statuses: (number | undefined)[] = []
    let isOver = false
    let enough = { count: 0, reached: () => {} }

    async function load(method: string, keepAlive: boolean): Promise<void> {
      const agent = new Agent({ keepAlive, maxSockets: 1 })
      while (!isOver) {
        statuses.push(await statusOf(agent, method))
        if (statuses.length >= enough.count) enough.reached()
      }
      agent.destroy()
    }

    async function handshakes(): Promise<void> {
      while (!isOver) {
        const server = { authority: { ...former, bundle: both }, id: payments }
        const socket = await dial(peerOptions(inbound.port, former.issue(web), server))
        serials.add(socket.getPeerCertificate().serialNumber)
        socket.end()
      }
    }

    const loads = [load('GET', true), load('POST', true), load('GET', false), handshakes()]
    for (let i = 1; i <= rotations; i++) {
      paymentsSource.put(contextOf(payments, i))
      webSource.put(contextOf(web, i))
      await new Promise<void>((reached) => {
        enough = { count: statuses.length + 5, reached }
      })
    }
    isOver = true
    await Promise.all(loads)
    expect(statuses.filter((status) => status !== 200)).toEqual([])
    expect(statuses.length).toBeGreaterThanOrEqual(rotations * 5)
    expect(serials.size).toBeGreaterThan(rotations / 4)
    expect([inbound.identities.rotations, outbound.identities.rotations]).toEqual([20, 20])
  })

  it('uses no former connection for a new request', async () => {
    const agent = new Agent({ keepAlive: true })
    await statusOf(agent, 'GET')
    webSource.put(contextOf(web, 0))
    await expect.poll(() => outbound.connections.size, patient).toBe(0)
    expect(await statusOf(agent, 'GET')).toBe(200)
    expect(outbound.connections.size).toBe(1)
    agent.destroy()
  })

  it('shows the new certificate to the next handshake, and ends what only the old root vouched for', async () => {
    paymentsSource.put(contextFor(former.issue(payments), former.bundle))
    const server = { authority: former, id: payments }
    const old = await dial(peerOptions(inbound.port, former.issue(web), server))
    const closed = new Promise((resolve) => old.once('close', resolve))
    old.on('error', () => {})
    old.resume()
    paymentsSource.put(contextFor(latter.issue(payments), latter.bundle))
    await closed
    await expect(dial(peerOptions(inbound.port, latter.issue(web), server))).rejects.toThrow()
    const next = await dial(
      peerOptions(inbound.port, latter.issue(web), { authority: latter, id: payments }),
    )
    next.destroy()
  })
})

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Proxy as Running, startProxy } from '../../proxy/main.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { createLog } from '../../runtime/log.ts'
import { startTestAgent, type TestAgent } from '../support/agent.ts'
import { contextFor } from '../support/mesh.ts'
import { askPayments, authority, inboundTo, payments, web } from '../support/shop.ts'
import { type App, startApp } from '../support/sidecar.ts'

const first = authority.issue(payments)

const policy = (paths: string) => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: shop, namespace: shop }
spec:
  rules:
    - from: [{ source: { principals: [td.example/ns/shop/sa/web] } }]
      to: [{ operation: { paths: [${paths}] } }]
`
const stateOf = (version: bigint, text: string) => ({
  version,
  policies: { version, files: [{ name: 'shop.yaml', text }] },
})

let folder: string
let app: App
let agent: TestAgent
let proxy: Running
const lines: string[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'castellan-proxy-'))
  app = await startApp((_, response) => response.end('from the workload'))
  agent = await startTestAgent(folder)
  agent.putContext(contextFor(first, authority.bundle))
  const destination = { write: (line: string) => void lines.push(line) }
  proxy = await startProxy({
    spec: proxySpec.parse({
      workloadApi: agent.endpoint,
      inbound: [inboundTo(app.port)],
    }),
    log: createLog({ name: 'proxy', destination }),
  })
})

afterAll(async () => {
  await proxy[Symbol.asyncDispose]()
  await agent[Symbol.asyncDispose]()
  await app[Symbol.asyncDispose]()
  await rm(folder, { recursive: true })
})

async function statusOf(path: string): Promise<string> {
  const port = proxy.listeners[0]?.port ?? 0
  const head = `GET ${path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n`
  return (await askPayments(port, head)).slice(9, 12)
}

const acked = (version: bigint) => async () =>
  await agent.report(({ report }) => report.case === 'ack' && report.value.version === version)

describe('control', () => {
  it('denies everything before the first policies', async () => {
    expect(await statusOf('/ok')).toBe('403')
  })

  it('puts policies into force, acknowledges them and tells about itself', async () => {
    agent.putState(stateOf(1n, policy('/ok')))
    const { report } = await acked(1n)()
    expect(report.value).toMatchObject({ version: 1n, refusal: '' })
    expect(await statusOf('/ok')).toBe('200')
    const vitals = await agent.report(({ report }) => report.case === 'vitals')
    expect(vitals.report.value).toMatchObject({
      serial: first.serial,
      notAfter: BigInt(first.notAfter),
      rotations: 0n,
    })
  })

  it('reports denials with their reason and remedy', async () => {
    expect(await statusOf('/secret')).toBe('403')
    const { report } = await agent.report(
      ({ report }) =>
        report.case === 'decisions' && report.value.denials.some(({ path }) => path === '/secret'),
    )
    if (report.case !== 'decisions') throw new Error('no decisions')
    const [denial] = report.value.denials.filter(({ path }) => path === '/secret')
    expect(denial).toMatchObject({
      source: web,
      destination: payments,
      port: app.port,
      method: 'GET',
    })
    expect(denial?.reason).toContain('denied, none of 1 ALLOW rules matches')
    expect(denial?.remedy).toContain('shop.yaml:6 shop/shop: add "/secret"')
  })

  it('keeps the policies in force when the next ones cannot be used', async () => {
    agent.putState(stateOf(2n, 'kind: Nonsense\n'))
    const { report } = await acked(2n)()
    expect(report.value).toMatchObject({ refusal: expect.stringContaining('shop.yaml:1') })
    expect(await statusOf('/ok')).toBe('200')
  })

  it('reports a rotation at once', async () => {
    const next = authority.issue(payments)
    agent.putContext(contextFor(next, authority.bundle))
    const { report } = await agent.report(
      ({ report }) => report.case === 'vitals' && report.value.rotations === 1n,
    )
    expect(report.value).toMatchObject({ serial: next.serial })
    expect(await statusOf('/ok')).toBe('200')
  })

  it('decides with the last policies while the agent is away, and finds it again', async () => {
    await agent[Symbol.asyncDispose]()
    expect(await statusOf('/ok')).toBe('200')
    expect(await statusOf('/secret')).toBe('403')
    agent = await startTestAgent(folder)
    agent.putContext(contextFor(first, authority.bundle))
    agent.putState(stateOf(7n, policy('/secret')))
    await acked(7n)()
    expect(await statusOf('/ok')).toBe('403')
    expect(await statusOf('/secret')).toBe('200')
  })

  it('lets nobody in once the agent has withdrawn the identity', async () => {
    agent.putContext(undefined)
    const isSaid = () => lines.some((line) => line.includes('no identity'))
    await expect.poll(isSaid, { timeout: 20_000 }).toBe(true)
    await expect(statusOf('/ok')).rejects.toThrow()
  })
})

// Traces of a real authority and a real agent at a real collector: what an operator sees of a join, of a
// renewal, of policies that come into force and of what a proxy is told.
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport } from '../../client/transport.ts'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { SecretDiscoveryService } from '../../proto/gen/envoy/service/secret/v3/sds_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { createLatest } from '../../runtime/lifecycle.ts'
import { traceInterceptors } from '../../runtime/tracing/interceptor.ts'
import { startTracing } from '../../runtime/tracing/start.ts'
import { memoryLog } from '../support/ca.ts'
import { type CollectedSpan, type Collector, startCollector } from '../support/collector.ts'
import { startNode, type TestNode } from '../support/node.ts'
import { policyText } from '../support/policy-text.ts'

const patience = { timeout: 60_000 }
const [agent, authority] = ['castellan-agent', 'castellan-authority']
const attest = 'spire.api.server.agent.v1.Agent/AttestAgent'
const batch = 'spire.api.server.svid.v1.SVID/BatchNewX509SVID'
const apply = 'castellan.policy.v1.Policies/ApplyPolicies'

let collector: Collector
let node: TestNode
beforeAll(async () => {
  collector = await startCollector()
  const tracing = { otlp: collector.url }
  const decisions = { socket: 'run/authz.sock' }
  node = await startNode({ svidLifetime: '8s', agent: { tracing, decisions }, ca: { tracing } })
}, 120_000)
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await collector[Symbol.asyncDispose]()
})

const named = (name: string, service: string) =>
  collector.spans.filter((it) => it.name === name && it.service === service)

async function first(name: string, service: string): Promise<CollectedSpan> {
  await expect.poll(() => named(name, service).length, patience).toBeGreaterThan(0)
  const [span] = named(name, service)
  if (span === undefined) throw new Error(`no span ${name}`)
  return span
}

/** Each span is a child of the one before it, in one trace. */
function expectChain(...spans: readonly CollectedSpan[]): void {
  for (const [i, span] of spans.entries()) {
    expect([span.name, span.parentSpanId]).toEqual([span.name, spans[i - 1]?.spanId])
    expect(span.traceId).toBe(spans[0]?.traceId)
  }
}

const childOf = async (parent: CollectedSpan, name: string, service: string) => {
  const find = () => named(name, service).find((it) => it.parentSpanId === parent.spanId)
  await expect.poll(find, patience).toBeDefined()
  return find() ?? parent
}

describe('a trace', () => {
  it('leads from the join of an agent through its call to the issuance at the authority', async () => {
    const join = await first('agent.join', agent)
    const asked = await childOf(join, attest, agent)
    const served = await childOf(asked, attest, authority)
    const issued = await childOf(served, 'issue', authority)
    expectChain(join, asked, served, issued)
    expect([asked.kind, served.kind, issued.kind]).toEqual([3, 2, 1])
    expect(issued.events.map(({ name }) => name)).toEqual([
      ...['proven', 'authorized', 'reserved', 'signed', 'recorded'],
    ])
    expect(issued.attributes).toMatchObject({
      'castellan.svid.kind': 'agent',
      'castellan.spiffe_id': expect.stringContaining('spiffe://example.org/spire/agent/'),
      'castellan.serial': expect.stringMatching(/^[0-9a-f]+$/),
    })
    expect(served.attributes).toMatchObject({
      'rpc.system': 'grpc',
      'rpc.method': 'AttestAgent',
      'rpc.grpc.status_code': 0,
    })
  })

  it('leads from a renewal to each SVID of its batch', async () => {
    await node.register('/ns/shop/sa/payments', [`unix:uid:${process.getuid?.()}`])
    const renewal = await first('svids.renew', agent)
    expect(renewal.attributes).toEqual({ 'castellan.svids': 1 })
    const asked = await childOf(renewal, batch, agent)
    const served = await childOf(asked, batch, authority)
    expectChain(renewal, asked, served, await childOf(served, 'issue', authority))
    expectChain(await first('agent.renew', agent))
  })

  it('leads from the operator who applies policies to the node that decides with them', async () => {
    const { log } = memoryLog()
    const operator = await startTracing(
      { otlp: collector.url, sample: 1 },
      { resource: { 'service.name': 'operator' }, clock: systemClock, log },
    )
    using local = openTransport(
      { kind: 'unix', path: node.authority.socket },
      { interceptors: traceInterceptors(operator.tracer) },
    )
    const text = policyText('[{ to: [{ operation: { paths: [/ok] } }] }]')
    const files = [{ name: 'shop.yaml', text }]
    const { version } = await createClient(Policies, local.transport).applyPolicies({ files })
    await operator[Symbol.asyncDispose]()
    const asked = await first(apply, 'operator')
    const served = await childOf(asked, apply, authority)
    const applied = await childOf(served, 'policies.apply', authority)
    const inForce = await childOf(applied, 'policies.in_force', agent)
    expectChain(asked, served, applied, inForce)
    for (const span of [applied, inForce])
      expect(span.attributes).toEqual({ 'castellan.policy.version': Number(version) })
    expect(inForce.status).toEqual({})
  })

  it('says why something failed', async () => {
    const files = [{ name: 'broken.yaml', text: 'kind: Nothing' }]
    await createClient(Policies, node.local)
      .applyPolicies({ files })
      .catch(() => {})
    await expect
      .poll(() => named(apply, authority).filter(({ status }) => status.code === 2), patience)
      .toMatchObject([
        {
          attributes: { 'error.type': 'ERR_POLICY', 'rpc.grpc.status_code': 3 },
          status: { message: expect.stringContaining('broken.yaml') },
        },
      ])
  })

  it('shows what a proxy was told, until it says that it has taken or refused it', async () => {
    using local = openTransport({ kind: 'unix', path: node.agent.socket })
    const over = new AbortController()
    using wants = createLatest<{ versionInfo: string; responseNonce: string }>(over.signal)
    wants.push({ versionInfo: '', responseNonce: '' })
    async function* requests() {
      for await (const want of wants)
        yield { ...want, resourceNames: ['default'], ...(told === 2 ? { errorDetail: {} } : {}) }
    }
    let told = 0
    const client = createClient(SecretDiscoveryService, local.transport)
    const stream = client.streamSecrets(requests(), { signal: over.signal })
    const reading = (async () => {
      for await (const { versionInfo, nonce } of stream) {
        told++
        // the second comes with the next certificate, the third with the one after
        if (told === 3) over.abort()
        else wants.push({ versionInfo, responseNonce: nonce })
      }
    })()
    await reading.catch(() => {})
    await expect.poll(() => named('xds.push', agent).length, patience).toBe(3)
    expect(named('xds.push', agent).map(({ attributes }) => attributes['error.type'])).toEqual([
      ...[undefined, 'ERR_BAD_REQUEST', 'ERR_CANCELLED'],
    ])
    expect(named('xds.push', agent)[0]?.attributes).toEqual({
      'castellan.xds.api': 'sds',
      'castellan.xds.kind': 'secrets',
      'process.pid': process.pid,
    })
  })

  it('holds no secret', () => {
    const all = JSON.stringify(collector.spans)
    expect(all).not.toMatch(/BEGIN|PRIVATE|eyJ/)
  })
})

// Metrics of an authority and an agent that run, as Prometheus scrapes them, while things happen to both.
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTransport, securityHeader } from '../../client/transport.ts'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { SecretDiscoveryService } from '../../proto/gen/envoy/service/secret/v3/sds_pb.js'
import { SpiffeWorkloadAPI } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { createLatest } from '../../runtime/lifecycle.ts'
import { newKeys } from '../support/ca-client.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { startNode, type TestNode } from '../support/node.ts'
import { policyText } from '../support/policy-text.ts'
import { freePort } from '../support/ports.ts'

const patience = { timeout: 60_000 }
let node: TestNode
let port: number
beforeAll(async () => {
  port = await freePort()
  const operations = `127.0.0.1:${port}`
  node = await startNode({ agent: { operations, decisions: { socket: 'run/authz.sock' } } })
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

async function read(at: number, series: string): Promise<number | undefined> {
  const page = await (await fetch(`http://127.0.0.1:${at}/metrics`)).text()
  const line = page.split('\n').find((it) => it.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1))
}
const ofAgent = (series: string) => read(port, `castellan_agent_${series}`)
const ofAuthority = (series: string) =>
  read(node.authority.operationsPort, `castellan_ca_${series}`)
const requests = (kind: string, outcome: string) =>
  ofAgent(`svid_requests_total{kind="${kind}",outcome="${outcome}"}`)
const pushes = (outcome: string) =>
  ofAgent(`xds_pushes_total{api="sds",kind="secrets",outcome="${outcome}"}`)

describe('issuance', () => {
  it('is counted where it is asked for and where it is granted', async () => {
    expect(await requests('join', 'done')).toBe(1)
    await node.register('/web', [`unix:uid:${process.getuid?.()}`])
    // this one, and the node's own alias
    await expect.poll(() => requests('x509', 'done'), patience).toBe(2)
    expect(await requests('x509', 'failed')).toBe(0)
    expect(await ofAgent('svids_due')).toBe(0)
    expect(await ofAuthority('issued_total{kind="agent"}')).toBe(1)
    expect(await ofAuthority('issued_total{kind="entry"}')).toBe(2)
    expect(await ofAuthority('issue_seconds_count{kind="entry"}')).toBe(2)
    const now = Date.now() / 1000
    for (const end of [
      await ofAgent('own_svid_expires_seconds'),
      await ofAgent('svid_expires_seconds'),
      await ofAuthority('server_svid_expires_seconds'),
    ]) {
      expect(end).toBeGreaterThan(now + 3000)
      expect(end).toBeLessThan(now + 3700)
    }
  })

  it('is counted where it is refused, with the reason', async () => {
    const names = requestedNames([0x86, 'spiffe://elsewhere.test/thief'])
    const csr = makeCsr(newKeys(), { attributes: [names] })
    await createClient(SVID, node.local)
      .mintX509SVID({ csr })
      .catch(() => {})
    expect(await ofAuthority('refused_total{kind="mint",reason="ERR_DENIED"}')).toBe(1)
    expect(await ofAuthority('issued_total{kind="mint"}')).toBeUndefined()
  })

  it('of tokens, too', async () => {
    using local = openTransport(
      { kind: 'unix', path: node.agent.socket },
      { interceptors: [securityHeader] },
    )
    await createClient(SpiffeWorkloadAPI, local.transport).fetchJWTSVID({ audience: ['a'] })
    expect(await requests('jwt', 'done')).toBe(1)
    expect(await ofAgent('tokens')).toBe(1)
  })
})

describe('keys', () => {
  const phase = (name: string) => ofAuthority(`authorities{kind="x509",phase="${name}"}`)

  it('are shown by phase, with their age and who lags', async () => {
    expect(await phase('active')).toBe(1)
    expect(await ofAuthority('authority_age_ratio{kind="x509"}')).toBeLessThan(0.1)
    const client = createClient(LocalAuthority, node.local)
    const { preparedAuthority } = await client.prepareX509Authority({})
    expect(await phase('prepared')).toBe(1)
    await expect.poll(() => ofAuthority('rotation_laggards'), patience).toBe(0)
    const authorityId = preparedAuthority?.authorityId ?? ''
    const change = { kind: 'x509', authorityId, forceReason: 'a drill' }
    await createClient(Authorities, node.local).activate(change)
    expect([await phase('prepared'), await phase('active'), await phase('old')]).toEqual([0, 1, 1])
  })
})

describe('policies', () => {
  const points = (standing: string) => ofAuthority(`policy_points{standing="${standing}"}`)

  it('are shown as they come into force', async () => {
    const text = policyText('[{ to: [{ operation: { paths: [/ok] } }] }]')
    const files = [{ name: 'shop.yaml', text }]
    const { version } = await createClient(Policies, node.local).applyPolicies({ files })
    expect(await ofAuthority('policy_version')).toBe(Number(version))
    await expect.poll(() => ofAgent('policy_version_in_force'), patience).toBe(Number(version))
    await expect.poll(() => points('in_force'), patience).toBe(1)
    expect(await points('behind')).toBe(0)
    expect(await ofAgent('points_refusing')).toBe(0)
  })
})

describe('streams', () => {
  it('are counted by method, and what proxies say of what they are told', async () => {
    const method = 'castellan.control.v1.Control/Subscribe'
    expect(await ofAuthority(`streams{method="${method}"}`)).toBe(1)
    const secrets = 'streams{method="envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"}'
    expect(await ofAgent(secrets)).toBe(0)
    using local = openTransport({ kind: 'unix', path: node.agent.socket })
    const over = new AbortController()
    using nonces = createLatest<string>(over.signal)
    nonces.push('')
    async function* wants() {
      for await (const responseNonce of nonces)
        yield {
          ...{ responseNonce, resourceNames: ['default'] },
          ...(responseNonce === '' ? {} : { errorDetail: { message: 'not for me' } }),
        }
    }
    const client = createClient(SecretDiscoveryService, local.transport)
    const reading = (async () => {
      for await (const { nonce } of client.streamSecrets(wants(), { signal: over.signal }))
        nonces.push(nonce)
    })()
    await expect.poll(() => pushes('refused'), patience).toBe(1)
    expect([await pushes('sent'), await pushes('taken')]).toEqual([1, 0])
    expect(await ofAgent(secrets)).toBe(1)
    expect(await ofAgent('late_streams')).toBe(0)
    over.abort()
    await reading.catch(() => {})
    await expect.poll(() => ofAgent(secrets), patience).toBe(0)
  })
})

describe('an authority that goes away', () => {
  it('is missed by its agent', async () => {
    expect(await ofAuthority('agents_connected')).toBe(1)
    expect(await ofAgent('connected')).toBe(1)
    await node.stopAuthority()
    await expect.poll(() => ofAgent('connected'), patience).toBe(0)
    expect(await ofAgent('disconnects_total')).toBeGreaterThan(0)
    await node.startAuthority()
    await expect.poll(() => ofAgent('connected'), patience).toBe(1)
    expect(await ofAuthority('store_healthy')).toBe(1)
  })
})

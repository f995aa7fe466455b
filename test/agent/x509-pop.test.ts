// An agent that joins by a certificate of its node: it renews, restarts and comes back by it.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { loadAgentConfig } from '../../agent/config.ts'
import { type RunningAgent, runAgent } from '../../agent/main.ts'
import { startX509Source } from '../../client/x509-source.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { explain } from '../../spiffe/errors.ts'
import { agentStatus } from '../support/agent-status.ts'
import { type MemoryLog, memoryLog, startTestCa, type TestCa } from '../support/ca.ts'
import { type Connection, connectLocally, rootsOf } from '../support/ca-client.ts'
import { testFolder } from '../support/folder.ts'
import { ec, type NodeCertificate, nodeIssuer, rsa } from '../support/node-certificates.ts'

const folder = testFolder()
const at = (name: string) => join(folder.path, name)
let issuer: Awaited<ReturnType<typeof nodeIssuer>>
let ca: TestCa
let local: Connection
beforeAll(async () => {
  issuer = await nodeIssuer('nodes')
  writeFileSync(at('nodes.pem'), issuer.certificate.toString('pem'))
  const config = `development: true
agentLifetime: 20s
attestors: { x509pop: { bundle: nodes.pem, agentPath: '/node/{cn}' } }
`
  ca = await startTestCa({ folder: folder.path, config })
  local = connectLocally(ca.running.socket)
  writeFileSync(at('bundle.pem'), await rootsOf(ca.running.socket))
})
afterAll(async () => {
  local[Symbol.dispose]()
  await ca[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

let stop: AbortController
let place: string
let written: MemoryLog
beforeEach(() => {
  stop = new AbortController()
})
afterEach(() => stop.abort())

function putCertificate({ certificate, key }: NodeCertificate): void {
  writeFileSync(at('node.pem'), certificate.toString('pem'))
  writeFileSync(at('node.key'), key.export({ format: 'pem', type: 'pkcs8' }))
}

/** `name` is the folder of the agent's state. */
function start(name: string): Promise<RunningAgent> {
  place = name
  const file = at(`${name}.yaml`)
  const text = `trustDomain: example.org
authority: { address: 127.0.0.1:${ca.running.port}, bundle: bundle.pem }
x509pop: { certificate: node.pem, key: node.key }
state: ${name}/state
socket: ${name}/public/agent.sock
adminSocket: ${name}/admin/admin.sock
`
  writeFileSync(file, text)
  written = memoryLog()
  return runAgent(loadAgentConfig(file), { log: written.log, signal: stop.signal })
}

/** What the authority knows of the agent of that name. */
const known = async (cn: string) => {
  const path = `/spire/agent/node/${cn}`
  return await local.client(Agent).getAgent({ id: { trustDomain: 'example.org', path } })
}

/** Waits, asking, until the authority knows another certificate than `serial`. */
async function untilOther(cn: string, serial: string): Promise<string> {
  while (true) {
    const { x509svidSerialNumber: next } = await known(cn)
    if (next !== serial && next !== '') return next
  }
}

async function idOnAdminSocket(): Promise<string> {
  return (await agentStatus(at(`${place}/admin/admin.sock`))).agentId
}

describe.each([
  ['EC', ec],
  ['RSA', rsa],
] as const)('an agent with an %s certificate of its node', (name, algorithm) => {
  const cn = `${name.toLowerCase()}-node`

  it('joins under the name that the authority makes of it, and renews by it again and again', async () => {
    putCertificate(await issuer.node(algorithm, 3_600_000, cn))
    await using agent = await start(cn)
    expect(await idOnAdminSocket()).toBe(`spiffe://example.org/spire/agent/node/${cn}`)
    const { x509svidSerialNumber: first } = await known(cn)
    const second = await untilOther(cn, first)
    await untilOther(cn, second)
    expect(await Promise.race([agent.done, 'running'])).toBe('running')
  }, 120_000)
})

describe('an agent with a certificate of its node', () => {
  it('starts again with a new one of the same name, and after it was deleted', async () => {
    const cn = 'again'
    putCertificate(await issuer.node(ec, 3_600_000, cn))
    const first = await start(cn)
    await first[Symbol.asyncDispose]()
    putCertificate(await issuer.node(ec, 3_600_000, cn))
    await using second = await start(cn)
    const before = (await known(cn)).x509svidSerialNumber
    const id = { trustDomain: 'example.org', path: `/spire/agent/node/${cn}` }
    await local.client(Agent).deleteAgent({ id })
    const back = async () => {
      while (true) {
        const agents = await local.client(Agent).listAgents({})
        if (agents.agents.some((it) => it.id?.path === id.path)) return
      }
    }
    await back()
    await untilOther(cn, before)
    expect(await Promise.race([second.done, 'running'])).toBe('running')
  }, 120_000)

  it('has the entries of its new certificate once it has attested by that', async () => {
    const cn = 'moved'
    const selectors = [{ type: 'unix', value: `uid:${process.getuid?.()}` }]
    const idOf = (path: string) => ({ trustDomain: 'example.org', path })
    const server = idOf('/spire/server')
    async function makeNode(name: string): Promise<NodeCertificate> {
      const made = await issuer.node(ec, 3_600_000, cn)
      const { serial } = parseCertificate(new Uint8Array(made.certificate.rawData))
      const own = [{ type: 'x509pop', value: `serialnumber:${serial}` }]
      await local.client(Entry).batchCreateEntry({
        entries: [
          { spiffeId: idOf(name), parentId: server, selectors: own },
          { spiffeId: idOf(`${name}/web`), parentId: idOf(name), selectors },
        ],
      })
      return made
    }
    const [first, second] = [await makeNode('/first'), await makeNode('/second')]
    const patience = { timeout: 60_000, interval: 200 }
    async function served(path: string): Promise<void> {
      const socket = at(`${place}/public/agent.sock`)
      await using source = startX509Source({ kind: 'unix', path: socket })
      await source.ready(AbortSignal.timeout(60_000))
      const ids = () => source.current()?.svids.map(({ id }) => id)
      await vi.waitFor(() => expect(ids()).toEqual([`spiffe://example.org${path}`]), patience)
    }
    putCertificate(first)
    await using agent = await start(cn)
    await served('/first/web')
    putCertificate(second)
    await served('/second/web')
    expect(await Promise.race([agent.done, 'running'])).toBe('running')
  }, 150_000)

  it('goes on as it is while its certificate cannot be read, and renews once it can', async () => {
    const cn = 'unreadable'
    const node = await issuer.node(ec, 3_600_000, cn)
    putCertificate(node)
    await using agent = await start(cn)
    const { x509svidSerialNumber: first } = await known(cn)
    writeFileSync(at('node.pem'), 'nothing')
    await written.says('could not attest again yet')
    expect(written.lines.join('')).not.toContain('the connection to the authority is lost')
    putCertificate(node)
    await untilOther(cn, first)
    expect(await Promise.race([agent.done, 'running'])).toBe('running')
  }, 120_000)

  it('ends when it is banned', async () => {
    const cn = 'banned'
    putCertificate(await issuer.node(ec, 3_600_000, cn))
    await using agent = await start(cn)
    const ended = expect(agent.done).rejects.toThrow('this agent is banned')
    const id = { trustDomain: 'example.org', path: `/spire/agent/node/${cn}` }
    await local.client(Agent).banAgent({ id })
    await ended
  })

  const bad = [
    ['of another authority', async () => (await nodeIssuer('others')).node(ec), /known CA/],
    ['that has expired', () => issuer.node(ec, -60_000), /known CA/],
    [
      'whose name is no part of a path',
      () => issuer.node(ec, 3_600_000, 'a/b'),
      /has no cn that can be part of an agent ID/,
    ],
  ] as const
  it.each(bad)('is not let in with one %s', async (_, make, message) => {
    putCertificate(await make())
    const refusal = await start('refused').catch((error: unknown) => explain(error))
    expect(refusal).toMatch(message)
  })

  it('says which file is wrong', async () => {
    const [one, other] = [await issuer.node(ec), await issuer.node(ec)]
    putCertificate({ certificate: one.certificate, key: other.key })
    await expect(start('mixed')).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(/^x509pop: the key in .*node\.key is not that of the first/),
    })
    writeFileSync(at('node.pem'), 'nothing')
    await expect(start('mixed')).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(/^x509pop\.certificate: cannot read .*node\.pem/),
    })
  })
})

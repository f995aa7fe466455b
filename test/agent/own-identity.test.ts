// Who the agent is, and its disk: a renewed SVID is used once it is on the disk, or before the old one ends.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createAddresses } from '../../agent/addresses.ts'
import { loadAgentConfig } from '../../agent/config.ts'
import { createAgentCounts } from '../../agent/counts.ts'
import { createKnowledge } from '../../agent/knowledge.ts'
import { createOwnIdentity } from '../../agent/own-identity.ts'
import type { AgentSvid } from '../../agent/own-svid.ts'
import { openState } from '../../agent/state.ts'
import { sealingSecret } from '../../runtime/sealed.ts'
import { tracesNothing } from '../../runtime/tracing/span.ts'
import { bundleOf } from '../../spiffe/bundle.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { memoryLog } from '../support/ca.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { testFolder } from '../support/folder.ts'
import { leafFields, signedLeaf, testSigner } from '../support/leaf.ts'

const hour = 3_600_000
const trustDomain = parseTrustDomain('example.org')
const never = new AbortController().signal

let folder: ReturnType<typeof testFolder>
beforeEach(() => {
  folder = testFolder()
})
afterEach(() => folder[Symbol.dispose]())

/** An agent whose SVID lives for an hour from now, and another SVID. */
async function setScene() {
  const clock = createFakeClock()
  const signer = await testSigner(clock.now())
  const knowledge = createKnowledge(trustDomain, clock)
  knowledge.begin(bundleOf(trustDomain, [signer.material]))
  const svidNow = (): AgentSvid => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
    const spiffeId = 'spiffe://example.org/spire/agent/test/1'
    const der = signedLeaf(leafFields(signer, clock.now(), { publicKey: spki, spiffeId }), signer)
    const { serial, notAfter } = parseCertificate(der)
    const id = parseSpiffeId(spiffeId)
    return { id, chain: [der], key: privateKey, serial, notAfter, receivedAt: clock.now() }
  }
  const file = join(folder.path, 'agent.yaml')
  writeFileSync(
    file,
    `trustDomain: example.org
authority: { address: "127.0.0.1:1", bundle: bundle.pem }
state: state
socket: run/agent.sock
adminSocket: admin/agent-admin.sock
`,
  )
  const config = loadAgentConfig(file)
  mkdirSync(config.state)
  const state = openState(config.state, trustDomain, sealingSecret(randomBytes(32)))
  const [old, next] = [svidNow(), svidNow()]
  const { log, lines } = memoryLog()
  const own = createOwnIdentity({
    ...{ config, knowledge, state, clock, log, svid: old, onTrouble: () => {} },
    addresses: createAddresses(config.authority.address),
    counts: createAgentCounts(),
    tracer: tracesNothing,
  })
  return { clock, config, state, lines, old, next, own, path: config.state }
}

describe('a renewed SVID of the agent', () => {
  it('is on the disk, then used', async () => {
    const { own, next, state } = await setScene()
    await own.keep(next, never)
    expect(own.svid()).toBe(next)
    expect(state.load()?.svid.serial).toBe(next.serial)
  })

  it('waits for a disk that takes nothing; the one before is used meanwhile', async () => {
    const { clock, own, old, next, state, path, lines } = await setScene()
    rmSync(path, { recursive: true })
    const kept = own.keep(next, never)
    await clock.advance(20_000)
    expect(own.svid()).toBe(old)
    expect(own.unsaved()).toContain('ENOENT')
    expect(lines).toEqual([expect.stringContaining('in memory only')])
    mkdirSync(path)
    await clock.advance(5000)
    await kept
    expect(own.svid()).toBe(next)
    expect(own.unsaved()).toBe(undefined)
    expect(state.load()?.svid.serial).toBe(next.serial)
  })

  it('is used from memory before the one before ends', async () => {
    const { clock, own, old, next, path } = await setScene()
    rmSync(path, { recursive: true })
    const kept = own.keep(next, never)
    await clock.advance(0.89 * hour)
    expect(own.svid()).toBe(old)
    await clock.advance(0.02 * hour)
    await kept
    expect(own.svid()).toBe(next)
    expect(own.unsaved()).toContain('ENOENT')
  })

  it('that the authority wants now is used at once', async () => {
    const { own, next, path, state } = await setScene()
    rmSync(path, { recursive: true })
    own.take(next)
    expect(own.svid()).toBe(next)
    expect(own.persist()).toBe(false)
    mkdirSync(path)
    expect(own.persist()).toBe(true)
    expect(state.load()?.svid.serial).toBe(next.serial)
  })
})

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { vouch } from '../../ca/attestors/attestor.ts'
import { hashOfToken } from '../../ca/attestors/join-token.ts'
import { type GrantRules, termsFor, type Wanted } from '../../ca/grants.ts'
import { openRegistry, type Registry } from '../../ca/registry.ts'
import type { AgentRow } from '../../ca/store/model.ts'
import type { Store } from '../../ca/store/store.ts'
import { serialOf } from '../../spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { refusalOf } from '../support/refusal.ts'
import { testAgent, testEntry } from '../support/rows.ts'
import { testStore } from '../support/store.ts'

const trustDomain = parseTrustDomain('example.org')
const now = Date.UTC(2031, 4, 17, 12)
const lifetimes = { default: 3_600_000, agent: 7_200_000, floor: 300_000, cap: 86_400_000 }
const agent = testAgent('a')
const id = parseSpiffeId('spiffe://example.org/web')
const token = { hash: hashOfToken('t'), now }

let store: Store
let registry: Registry
let rules: GrantRules
beforeEach(async () => {
  store = await testStore()
  registry = await openRegistry(store, trustDomain)
  rules = { trustDomain, registry, now: () => now, serverNames: ['ca.example.org'], lifetimes }
})
afterEach(() => {
  registry[Symbol.dispose]()
  store[Symbol.asyncDispose]()
})

const facts = {
  kind: 'node',
  agentId: agent.id,
  attestationType: 'join_token',
  selectors: [],
  canReattest: false,
} as const
const node = () => vouch({ ...facts, token })
const mint = (change: Partial<Extract<Wanted, { kind: 'mint' }>> = {}): Wanted => ({
  kind: 'mint',
  id,
  dnsNames: [],
  lifetime: 0,
  ...change,
})
const administrator = vouch({ kind: 'administrator', name: 'local' })
const terms = (attested: ReturnType<typeof node>, wanted: Wanted) =>
  termsFor(attested, wanted, rules)
const refusal = (attested: ReturnType<typeof node>, wanted: Wanted) =>
  refusalOf(() => terms(attested, wanted))
const denied = (message: string) => ({ code: 'ERR_DENIED', message })

describe('who may have what', () => {
  it('is a table: a combination that it does not hold is denied', async () => {
    await store.entries.create(testEntry('web', { parentId: agent.id }))
    const callers = {
      node: node(),
      agent: vouch({ kind: 'agent', agent }),
      administrator,
      'service account': vouch({ kind: 'service account', id, name: 'istio:k8s' }),
      self: vouch({ kind: 'self' }),
    }
    const wishes: Wanted[] = [
      { kind: 'agent' },
      { kind: 'entry', entryId: 'web' },
      mint(),
      { kind: 'service account', lifetime: 0 },
      { kind: 'server' },
    ]
    const allowed = Object.entries(callers).flatMap(([kind, caller]) =>
      wishes.flatMap((wanted) => {
        const found = refusal(caller, wanted)
        if (found === undefined) return [`${kind} ${wanted.kind}`]
        const message = `a caller of kind ${kind} may not have a certificate of kind ${wanted.kind}`
        expect(found).toEqual(denied(message))
        return []
      }),
    )
    expect(allowed).toEqual([
      'node agent',
      'agent agent',
      'agent entry',
      'administrator mint',
      'service account service account',
      'self server',
    ])
  })

  it('self: the server’s own ID and no other', () => {
    expect(terms(vouch({ kind: 'self' }), { kind: 'server' })).toEqual({
      spiffeId: 'spiffe://example.org/spire/server',
      dnsNames: ['ca.example.org'],
      lifetime: lifetimes.default,
      entryId: '',
      requester: 'spiffe://example.org/spire/server',
    })
  })
})

describe('a node that joins', () => {
  const serial = serialOf(Buffer.alloc(16, 0x41))

  it('becomes the agent that its evidence names, together with its certificate', () => {
    const { change, ...rest } = terms(node(), { kind: 'agent' })
    const requester = agent.id
    expect(rest).toEqual({
      spiffeId: agent.id,
      dnsNames: [],
      lifetime: lifetimes.agent,
      entryId: '',
      requester,
      token,
    })
    expect(change?.({ serial, notAfter: 7 })).toEqual({
      kind: 'attested',
      token: token.hash,
      agent: { ...agent, serial, notAfter: 7, version: '', attestedAt: now },
    })
  })

  async function known(row: AgentRow): Promise<void> {
    const attested = { kind: 'attested', agent: row, token: undefined } as const
    const { id: spiffeId } = row
    const body = { authorityId: '', requester: '', entryId: '', notBefore: 0, notAfter: 0 }
    await store.issuance.record(
      { ...body, serial, spiffeId, certificate: new Uint8Array() },
      attested,
    )
  }

  it('does not join again: a used token is a used token', async () => {
    await known(agent)
    expect(refusal(node(), { kind: 'agent' })).toEqual({
      code: 'ERR_JOIN_TOKEN',
      message: 'join token does not exist, has expired or has already been used',
    })
    expect(refusal(vouch({ ...facts }), { kind: 'agent' })).toEqual(
      denied(`${agent.id} is attested already and cannot attest again`),
    )
  })

  it('joins again when its evidence may, and not when it is banned', async () => {
    const again = vouch({ ...facts, canReattest: true })
    await known({ ...agent, canReattest: true })
    expect(terms(again, { kind: 'agent' })).toMatchObject({ spiffeId: agent.id })
    await store.agents.ban(agent.id)
    expect(refusal(again, { kind: 'agent' })).toEqual({
      code: 'ERR_AGENT_BANNED',
      message: `${agent.id} is banned`,
    })
  })
})

describe('an agent', () => {
  const caller = vouch({ kind: 'agent', agent })

  it('renews itself, under its own ID', () => {
    const { change, ...rest } = terms(caller, { kind: 'agent' })
    expect(rest).toMatchObject({ spiffeId: agent.id, requester: agent.id, entryId: '' })
    const serial = serialOf(Buffer.alloc(16, 0x42))
    const notAfter = now + 1
    expect(change?.({ serial, notAfter })).toEqual({
      kind: 'renewed',
      id: agent.id,
      serial,
      notAfter,
    })
  })

  it('has what an entry below it gives, and nothing that it does not give', async () => {
    const given = { spiffeId: id, dnsNames: ['web.example'], x509SvidTtl: 600 }
    await store.entries.create(testEntry('web', { parentId: agent.id, ...given }))
    expect(terms(caller, { kind: 'entry', entryId: 'web' })).toEqual({
      spiffeId: id,
      dnsNames: ['web.example'],
      lifetime: 600_000,
      entryId: 'web',
      requester: agent.id,
    })
  })

  it.each([
    [1, lifetimes.floor],
    [299, lifetimes.floor],
    [301, 301_000],
    [0, lifetimes.default],
    [86_400, lifetimes.cap],
    [90_000, lifetimes.cap],
  ])('lives within floor and cap: %i s asked', async (x509SvidTtl, lifetime) => {
    await store.entries.create(testEntry('web', { parentId: agent.id, x509SvidTtl }))
    expect(terms(caller, { kind: 'entry', entryId: 'web' })).toMatchObject({ lifetime })
  })

  it('has nothing of a foreign, an expired or a missing entry', async () => {
    await store.entries.create(testEntry('foreign', { parentId: testAgent('b').id }))
    const expiresAt = now / 1000
    await store.entries.create(testEntry('expired', { parentId: agent.id, expiresAt }))
    for (const entryId of ['foreign', 'expired']) {
      const message = `entry ${entryId} is not below agent ${agent.id}`
      expect(refusal(caller, { kind: 'entry', entryId })).toEqual(denied(message))
    }
    expect(refusal(caller, { kind: 'entry', entryId: 'none' })).toEqual({
      code: 'ERR_NOT_FOUND',
      message: 'entry none not found',
    })
  })
})

describe('an administrator mints', () => {
  it('what it asks for, within floor and cap, under its own name', () => {
    const wanted = mint({ dnsNames: ['a.example'], lifetime: 1 })
    expect(terms(administrator, wanted)).toEqual({
      spiffeId: id,
      dnsNames: ['a.example'],
      lifetime: lifetimes.floor,
      entryId: '',
      requester: 'local',
    })
  })

  it.each([
    ['X5-4 an ID without a path', 'spiffe://example.org', 'cannot be minted'],
    ['the reserved path', 'spiffe://example.org/spire', 'cannot be minted'],
    ['the server', 'spiffe://example.org/spire/server', 'cannot be minted'],
    ['an agent', 'spiffe://example.org/spire/agent/x', 'cannot be minted'],
    ['X5-7 another domain', 'spiffe://other.org/web', 'is not of trust domain example.org'],
    ['X5-7 a longer domain', 'spiffe://example.orgs/web', 'is not of trust domain example.org'],
  ])('never %s', (_, text, why) => {
    const wanted = mint({ id: parseSpiffeId(text) })
    expect(refusal(administrator, wanted)).toEqual(denied(`${text} ${why}`))
  })

  it('what only begins like the reserved path', () => {
    const wanted = mint({ id: parseSpiffeId('spiffe://example.org/spirea') })
    expect(refusal(administrator, wanted)).toBe(undefined)
  })
})

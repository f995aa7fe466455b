// The authority end to end: TLS and the local socket, with the gRPC client that our agent uses.
import { describe, expect, it, vi } from 'vitest'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { PermissionDeniedDetails_Reason as Reason } from '../../proto/gen/spire/api/types/status_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { parseSpiffeId, pathOf } from '../../spiffe/id.ts'
import { attest, type Credential, denialOf, newKeys } from '../support/ca-client.ts'
import { makeCsr } from '../support/csr.ts'
import { sharedCa } from '../support/shared-ca.ts'

const ca = sharedCa()

const serialOf = ({ chain }: Credential) => parseCertificate(chain[0] ?? new Uint8Array()).serial
const wireId = (id: string) => ({ trustDomain: 'example.org', path: pathOf(parseSpiffeId(id)) })

/** Asks what only an attested agent may; undefined is success. */
async function useAs(credential: Credential) {
  using connection = ca.remote(credential)
  return await denialOf(connection.client(Entry).getAuthorizedEntries({}))
}

const unusable = {
  code: 'InvalidArgument',
  message: 'join token does not exist, has expired or has already been used',
}

describe('joining by a token', () => {
  it('gives an agent its SVID, which the authority then knows', async () => {
    const agent = await ca.join()
    expect(agent.id).toMatch(/^spiffe:\/\/example\.org\/spire\/agent\/join_token\/[0-9a-f]{32}$/)
    expect(agent.chain).toHaveLength(1)
    const leaf = parseCertificate(agent.chain[0] ?? new Uint8Array())
    expect(leaf.names).toEqual([{ kind: 'uri', value: agent.id }])
    const spki = agent.keys.publicKey.export({ format: 'der', type: 'spki' })
    expect(Buffer.from(leaf.publicKey)).toEqual(spki)
    const known = await ca.local.client(Agent).getAgent({ id: wireId(agent.id) })
    expect(known).toMatchObject({
      attestationType: 'join_token',
      x509svidSerialNumber: leaf.serial,
      x509svidExpiresAt: BigInt(leaf.notAfter / 1000),
      banned: false,
      canReattest: false,
    })
    expect(await useAs(agent)).toBe(undefined)
  })

  it('gives the same agent another SVID when its answer was lost: to its key, and to no other', async () => {
    const token = await ca.newToken()
    const again = 'castellan_interrupted_join'
    const keys = newKeys()
    using connection = ca.remote()
    expect(await denialOf(attest(connection, token, keys, again)), 'not used yet').toEqual(unusable)
    const first = await attest(connection, token, keys)
    const second = await attest(connection, token, keys, again)
    expect(second.id).toBe(first.id)
    expect(serialOf(second)).not.toBe(serialOf(first))
    expect(await useAs(second)).toBe(undefined)
    expect(await denialOf(attest(connection, token, newKeys(), again))).toEqual(unusable)
    expect(await denialOf(attest(connection, await ca.newToken(), keys, again))).toEqual(unusable)
    expect(await denialOf(attest(connection, '', keys, again))).toMatchObject({
      code: 'InvalidArgument',
      message: 'a join token is 1 to 256 bytes',
    })
    await ca.local.client(Agent).banAgent({ id: wireId(first.id) })
    expect(await denialOf(attest(connection, token, keys, again)), 'banned').toEqual(unusable)
    await ca.local.client(Agent).deleteAgent({ id: wireId(first.id) })
    expect(await denialOf(attest(connection, token, keys, again)), 'deleted').toEqual(unusable)
  })

  it('happens once per token', async () => {
    const token = await ca.newToken()
    using connection = ca.remote()
    await attest(connection, token)
    expect(await denialOf(attest(connection, token))).toEqual(unusable)
    expect(await denialOf(attest(connection, 'nobody-made-this-token'))).toEqual(unusable)
  })

  it('R3 of 100 parallel attestations with one token exactly one wins', async () => {
    const token = await ca.newToken()
    const before = await ca.local.client(Agent).countAgents({})
    const connections = Array.from({ length: 10 }, () => ca.remote())
    const attempts = Array.from({ length: 100 }, (_, i) =>
      attest(connections[i % 10] ?? ca.local, token),
    )
    const denials = await Promise.all(attempts.map(denialOf))
    for (const connection of connections) connection[Symbol.dispose]()
    expect(denials.filter((it) => it === undefined)).toHaveLength(1)
    for (const it of denials.filter((one) => one !== undefined)) expect(it).toEqual(unusable)
    const after = await ca.local.client(Agent).countAgents({})
    expect(after.count - before.count).toBe(1)
  })

  it('R18 with a CSR of another key gives nothing, and the token stays good', async () => {
    const token = await ca.newToken()
    const [keys, other] = [newKeys(), newKeys()]
    using connection = ca.remote()
    async function* requests(csr: Uint8Array) {
      const data = { type: 'join_token', payload: Buffer.from(token) }
      yield { step: { case: 'params' as const, value: { data, params: { csr } } } }
    }
    const forged = makeCsr(keys, { signingKey: other.privateKey })
    const call = connection.client(Agent).attestAgent(requests(forged))[Symbol.asyncIterator]()
    expect(await denialOf(call.next())).toEqual({
      code: 'InvalidArgument',
      message: 'CSR refused: its signature is not by its own key',
    })
    await attest(connection, token)
  })

  it('needs evidence of a kind that somebody can judge', async () => {
    using connection = ca.remote()
    async function* requests() {
      const data = { type: 'aws_iid', payload: Buffer.from('{}') }
      const params = { csr: makeCsr(newKeys()) }
      yield { step: { case: 'params' as const, value: { data, params } } }
    }
    const call = connection.client(Agent).attestAgent(requests())[Symbol.asyncIterator]()
    expect(await denialOf(call.next())).toEqual({
      code: 'InvalidArgument',
      message: 'params.data.type: no attestor of type "aws_iid"',
    })
    async function* none() {}
    const empty = connection.client(Agent).attestAgent(none())[Symbol.asyncIterator]()
    expect(await denialOf(empty.next())).toEqual({
      code: 'InvalidArgument',
      message: 'params: is missing',
    })
  })
})

describe('a join token', () => {
  it('is what the administrator says, within bounds', async () => {
    const create = (init: object) => ca.local.client(Agent).createJoinToken(init)
    const token = 'a-token-of-my-own-choice'
    expect((await create({ token, ttl: 5 })).value).toBe(token)
    expect(await denialOf(create({ token }))).toEqual({
      code: 'AlreadyExists',
      message: 'this join token exists already',
    })
    expect(await denialOf(create({ token: 'short' }))).toEqual({
      code: 'InvalidArgument',
      message: 'token: is not 16 to 255 of letters, digits, dot, hyphen, underscore',
    })
    for (const ttl of [-1, 86_401]) {
      expect(await denialOf(create({ ttl }))).toEqual({
        code: 'InvalidArgument',
        message: 'ttl: is not 1 to 86400 seconds',
      })
    }
  })

  it('with an ID makes its alias with it, or neither', async () => {
    const agentId = { trustDomain: 'example.org', path: '/node/one' }
    const { value } = await ca.local.client(Agent).createJoinToken({ agentId })
    using connection = ca.remote()
    const { id } = await attest(connection, value)
    const filter = { byParentId: wireId(id) }
    const { entries } = await ca.local.client(Entry).listEntries({ filter })
    expect(entries).toMatchObject([
      { spiffeId: agentId, selectors: [{ type: 'spiffe_id', value: id }] },
    ])
    const reserved = { trustDomain: 'example.org', path: '/spire/server' }
    const token = 'token-for-a-reserved-id'
    const refused = ca.local.client(Agent).createJoinToken({ token, agentId: reserved })
    expect(await denialOf(refused)).toEqual({
      code: 'InvalidArgument',
      message: 'agent_id: spiffe://example.org/spire/server lies under the reserved path /spire',
    })
    expect(await denialOf(attest(connection, token))).toEqual(unusable)
  })
})

describe('renewal', () => {
  async function renewed(agent: Credential): Promise<Credential> {
    const keys = newKeys()
    using connection = ca.remote(agent)
    const { svid } = await connection.client(Agent).renewAgent({ params: { csr: makeCsr(keys) } })
    return { chain: svid?.certChain ?? [], keys }
  }
  const replaced = (credential: Credential, id: string) => ({
    code: 'PermissionDenied',
    message: `certificate ${serialOf(credential)} of ${id} was replaced`,
    reason: Reason.AGENT_NOT_ACTIVE,
  })

  it('leaves the old certificate good until the new one is used', async () => {
    const agent = await ca.join()
    const next = await renewed(agent)
    expect(serialOf(next)).not.toBe(serialOf(agent))
    expect(await useAs(agent), 'not yet used').toBe(undefined)
    expect(await useAs(next)).toBe(undefined)
    expect(await useAs(agent), 'used').toEqual(replaced(agent, agent.id))
    expect(await useAs(next)).toBe(undefined)
  })

  it('twice without use keeps the newest alone beside the one in use', async () => {
    const agent = await ca.join()
    const [first, second] = [await renewed(agent), await renewed(agent)]
    expect(await useAs(first)).toEqual(replaced(first, agent.id))
    expect(await useAs(agent)).toBe(undefined)
    expect(await useAs(second)).toBe(undefined)
  })

  it('is for agents, and with a CSR', async () => {
    using anonymous = ca.remote()
    const call = anonymous.client(Agent).renewAgent({ params: { csr: makeCsr(newKeys()) } })
    expect(await denialOf(call)).toEqual({
      code: 'PermissionDenied',
      message: 'anonymous is no agent',
    })
    using connection = ca.remote(await ca.join())
    expect(await denialOf(connection.client(Agent).renewAgent({}))).toEqual({
      code: 'InvalidArgument',
      message: 'params: is missing',
    })
  })
})

describe('an agent', () => {
  it('that is banned is told so, until it is deleted', async () => {
    const agent = await ca.join()
    await ca.local.client(Agent).banAgent({ id: wireId(agent.id) })
    // a connection of it may be cut off before its call is answered
    await vi.waitFor(
      async () =>
        expect(await useAs(agent)).toEqual({
          code: 'PermissionDenied',
          message: `${agent.id} is banned`,
          reason: Reason.AGENT_BANNED,
        }),
      { timeout: 20_000 },
    )
    const { agents } = await ca.local.client(Agent).listAgents({ filter: { byBanned: true } })
    expect(agents).toMatchObject([{ id: wireId(agent.id), banned: true, x509svidSerialNumber: '' }])
    await ca.local.client(Agent).deleteAgent({ id: wireId(agent.id) })
    expect(await useAs(agent)).toEqual({
      code: 'PermissionDenied',
      message: `${agent.id} is not attested`,
      reason: Reason.AGENT_NOT_ATTESTED,
    })
    const gone = ca.local.client(Agent).deleteAgent({ id: wireId(agent.id) })
    expect(await denialOf(gone)).toEqual({
      code: 'NotFound',
      message: `agent ${agent.id} not found`,
    })
  })

  it('says its version once, and it is shown', async () => {
    const agent = await ca.join()
    using connection = ca.remote(agent)
    await connection.client(Agent).postStatus({ agentVersion: '9.9' })
    const known = await ca.local.client(Agent).getAgent({ id: wireId(agent.id) })
    expect(known.agentVersion).toBe('9.9')
  })

  it('R19 is not listed by a filter that nobody understands', async () => {
    const list = (byExpiresBefore: string) =>
      ca.local.client(Agent).listAgents({ filter: { byExpiresBefore } })
    expect(await denialOf(list('next tuesday'))).toEqual({
      code: 'InvalidArgument',
      message: 'filter.by_expires_before: is no time in RFC 3339',
    })
    expect((await list('2020-01-01T00:00:00Z')).agents).toEqual([])
    expect((await list('2099-01-01T00:00:00Z')).agents.length).toBeGreaterThan(0)
  })
})

describe('the log', () => {
  it('has told every refusal, and no token, key or CSR', async () => {
    const token = await ca.newToken()
    using connection = ca.remote()
    await attest(connection, token)
    await denialOf(attest(connection, token))
    const text = ca.lines.join('')
    expect(text).toContain('"msg":"call refused"')
    expect(text).toContain('"msg":"issued"')
    expect(text).not.toContain(token)
    expect(text).not.toMatch(/BEGIN|PRIVATE|MII[A-Za-z0-9+/]{20}/)
  })

  it('R16 names no value of a selector, neither of an entry that is taken nor of one that is refused', async () => {
    const secret = 'env:DATABASE_PASSWORD=hunter2'
    const entries = ca.local.client(Entry)
    const entry = (path: string) => ({
      spiffeId: { trustDomain: 'example.org', path },
      parentId: { trustDomain: 'example.org', path: '/node' },
      selectors: [{ type: 'docker', value: secret }],
    })
    const made = await entries.batchCreateEntry({ entries: [entry('/r16'), entry('/r16')] })
    expect(made.results.map(({ status }) => status?.code)).toEqual([0, 6])
    const refused = entries.batchCreateEntry({ entries: [entry('//'), entry('/r16')] })
    expect((await refused).results.map(({ status }) => status?.code)).toEqual([3, 6])
    const [id = ''] = made.results.map((it) => it.entry?.id)
    await entries.batchUpdateEntry({ entries: [{ ...entry('/r16-b'), id }] })
    await entries.batchDeleteEntry({ ids: [id] })
    const many = Array(1001).fill(entry('/r16'))
    expect(await denialOf(entries.batchCreateEntry({ entries: many }))).toMatchObject({
      code: 'InvalidArgument',
    })
    expect(ca.lines.some((line) => line.includes('BatchCreateEntry'))).toBe(true)
    expect(ca.lines.join('')).not.toContain('hunter2')
  })
})

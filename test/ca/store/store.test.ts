import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { hashOfToken } from '../../../ca/attestors/join-token.ts'
import type {
  AgentRow,
  AuthorityRow,
  AuthorityState,
  EntryRow,
  Event,
  IssuedRow,
} from '../../../ca/store/model.ts'
import type { StoreLocation } from '../../../ca/store/open.ts'
import type { Store } from '../../../ca/store/store.ts'
import { serialOf } from '../../../spiffe/certificate.ts'
import { testFolder } from '../../support/folder.ts'
import { startPostgres, type TestPostgres, whyNoPostgres } from '../../support/postgres.ts'
import { testAgent, testEntry } from '../../support/rows.ts'
import { testStore } from '../../support/store.ts'

const now = 1_900_000_000_000
const by = { at: now, caller: 'local', message: '' }
const serial = (byte: number) => serialOf(Buffer.alloc(16, byte))
const hash = hashOfToken('some-join-token')
const unusable = {
  code: 'ERR_JOIN_TOKEN',
  message: 'join token does not exist, has expired or has already been used',
}

let folder: ReturnType<typeof testFolder>
let postgres: TestPostgres | undefined
let location: StoreLocation
let store: Store

async function reopened(): Promise<Store> {
  await store[Symbol.asyncDispose]()
  store = await testStore({ location })
  return store
}

function issued(byte: number, change: Partial<IssuedRow> = {}): IssuedRow {
  return {
    serial: serial(byte),
    spiffeId: testAgent('a').id,
    authorityId: 'abc',
    requester: 'local',
    entryId: '',
    notBefore: now,
    notAfter: now + byte,
    certificate: new Uint8Array([1, 2, byte]),
    ...change,
  }
}

const intent = (byte: number) => ({
  serial: serial(byte),
  spiffeId: testAgent('a').id,
  authorityId: 'abc',
  at: now,
})
const attested = (agent: AgentRow, token?: Uint8Array) =>
  ({ kind: 'attested', agent, token }) as const

async function listed(entries: AsyncIterable<EntryRow>): Promise<EntryRow[]> {
  const all: EntryRow[] = []
  for await (const entry of entries) all.push(entry)
  return all
}

/** A place for an empty store, by the name of its engine. */
const engines: Readonly<Record<string, () => Promise<StoreLocation>>> = {
  'node:sqlite': async () => ({ path: join(folder.path, 'castellan.db') }),
  PostgreSQL: async () => ({ url: (await postgres?.database()) ?? '' }),
}
const why = whyNoPostgres()

beforeAll(async () => {
  if (why === undefined) postgres = await startPostgres()
}, 120_000)
afterAll(() => postgres?.[Symbol.asyncDispose]())

describe.each(Object.keys(engines))('on %s', (engine) => {
  beforeEach(async ({ skip }) => {
    skip(engine === 'PostgreSQL' && why !== undefined, why)
    folder = testFolder()
    location = (await engines[engine]?.()) ?? { path: ':memory:' }
    store = await testStore({ location })
  })
  afterEach(async () => {
    await store[Symbol.asyncDispose]()
    folder[Symbol.dispose]()
  })

  describe('issued certificates', () => {
    it('are found by serial and by ID, the newest first, after a restart too', async () => {
      const other = testAgent('b').id
      await Promise.all([0x41, 0x43, 0x42].map((byte) => store.issuance.record(issued(byte))))
      await store.issuance.record(issued(0x44, { spiffeId: other }))
      const holdsAll = async () => {
        const { id: spiffeId } = testAgent('a')
        const { rows, next } = await store.issuance.list({ spiffeId, since: 0, limit: 2 })
        expect(rows).toEqual([issued(0x42), issued(0x43)])
        const rest = {
          spiffeId,
          since: 0,
          limit: 2,
          ...(next === undefined ? {} : { before: next }),
        }
        expect(await store.issuance.list(rest)).toEqual({ rows: [issued(0x41)], next: undefined })
        const found = await store.issuance.find(serial(0x44))
        expect(found).toEqual(issued(0x44, { spiffeId: other }))
        expect(await store.issuance.find(serial(0x45))).toBeUndefined()
      }
      await holdsAll()
      await reopened()
      await holdsAll()
    })

    it('never share a serial', async () => {
      await store.issuance.record(issued(0x41))
      await expect(store.issuance.record(issued(0x41, { entryId: 'x' }))).rejects.toThrow(
        /unique constraint/i,
      )
      expect(await store.issuance.find(serial(0x41))).toEqual(issued(0x41))
    })
  })

  describe('a join token', () => {
    beforeEach(() => store.issuance.createToken({ hash, expiresAt: now + 1 }))
    const use = (byte: number, at = now) => store.issuance.reserve(intent(byte), { hash, now: at })

    it('R3 is won by exactly one of a hundred', async () => {
      const all = await Promise.allSettled(
        Array.from({ length: 100 }, (_, i) => use(0x40 + (i % 64))),
      )
      const lost = all.filter((it) => it.status === 'rejected')
      expect(lost).toHaveLength(99)
      for (const it of lost) expect(it.reason).toMatchObject(unusable)
    })

    it('is unknown, expired or used, and all three sound the same', async () => {
      await expect(use(0x41, now + 1)).rejects.toMatchObject(unusable)
      await expect(
        store.issuance.reserve(intent(0x41), { hash: hashOfToken('other'), now }),
      ).rejects.toMatchObject(unusable)
      await use(0x41)
      await expect(use(0x42)).rejects.toMatchObject(unusable)
    })

    it('is gone with the record of its certificate, for good', async () => {
      await use(0x41)
      const agent = testAgent('a', { serial: serial(0x41) })
      await store.issuance.record(issued(0x41), attested(agent, hash))
      await store.issuance.release(hash)
      await expect(use(0x42)).rejects.toMatchObject(unusable)
      await reopened()
      await expect(use(0x42)).rejects.toMatchObject(unusable)
      expect(await store.agents.list()).toEqual([agent])
    })

    it('that another replica has taken over meanwhile joins nobody', async () => {
      await use(0x41)
      await using other = await testStore({ location, replica: 'other' }).catch(() => undefined)
      // a file has no other replica
      if (other === undefined) return
      await store.issuance.release(hash)
      await other.issuance.reserve(intent(0x42), { hash, now })
      const agent = testAgent('a', { serial: serial(0x41) })
      await expect(
        store.issuance.record(issued(0x41), attested(agent, hash)),
      ).rejects.toMatchObject(unusable)
      expect(await store.issuance.find(serial(0x41))).toBeUndefined()
      await store.issuance.release(hash)
      await expect(use(0x43)).rejects.toMatchObject(unusable)
    })

    it('is good again when it is released, and after a restart in between', async () => {
      await use(0x41)
      await store.issuance.release(hash)
      await use(0x42)
      await reopened()
      await use(0x43)
    })

    it('is made once', async () => {
      await expect(store.issuance.createToken({ hash, expiresAt: now })).rejects.toMatchObject({
        code: 'ERR_ALREADY_EXISTS',
        message: 'this join token exists already',
      })
    })
  })

  describe('agents', () => {
    const agent = testAgent('a', { serial: serial(0x41), selectors: [{ type: 'x', value: 'y' }] })
    beforeEach(() => store.issuance.record(issued(0x41), attested(agent)))
    const renew = () =>
      store.issuance.record(issued(0x42), {
        kind: 'renewed',
        id: agent.id,
        serial: serial(0x42),
        notAfter: now + 7,
      })

    it('keep their certificate until the renewed one was seen', async () => {
      await renew()
      expect(await store.agents.get(agent.id)).toEqual({
        ...agent,
        pendingSerial: serial(0x42),
        notAfter: now + 7,
      })
      await store.agents.promote(agent.id, serial(0x43))
      expect((await store.agents.get(agent.id))?.serial).toBe(serial(0x41))
      await store.agents.promote(agent.id, serial(0x42))
      expect(await (await reopened()).agents.get(agent.id)).toEqual({
        ...agent,
        serial: serial(0x42),
        notAfter: now + 7,
      })
    })

    it('that are banned have no certificate, renew none, and are promoted to none', async () => {
      await renew()
      expect(await store.agents.ban(agent.id)).toBe(true)
      await store.agents.promote(agent.id, serial(0x42))
      const banned = { ...agent, banned: true, serial: '', pendingSerial: '', notAfter: now + 7 }
      expect(await store.agents.get(agent.id)).toEqual(banned)
      const message = `${agent.id} was banned or deleted meanwhile`
      await expect(
        store.issuance.record(issued(0x44), {
          kind: 'renewed',
          id: agent.id,
          serial: serial(0x44),
          notAfter: now,
        }),
      ).rejects.toMatchObject({ code: 'ERR_AGENT_BANNED', message })
      expect(await store.issuance.find(serial(0x44))).toBeUndefined()
    })

    it('that were banned stay so, whatever attestation was under way', async () => {
      await store.agents.ban(agent.id)
      await expect(store.issuance.record(issued(0x45), attested(agent))).rejects.toMatchObject({
        code: 'ERR_AGENT_BANNED',
      })
      expect((await store.agents.get(agent.id))?.banned).toBe(true)
      expect(await store.issuance.find(serial(0x45))).toBeUndefined()
    })

    it('are told of to everybody when their renewed certificate is in use', async () => {
      await renew()
      const before = store.events.last()
      await store.agents.promote(agent.id, serial(0x42))
      expect(await store.events.after(before, 10)).toMatchObject([{ kind: 'agent', key: agent.id }])
    })

    it('say their version, are deleted, and are not there twice', async () => {
      expect(await store.agents.setVersion(agent.id, '1.2')).toBe(true)
      expect(await store.agents.list()).toEqual([{ ...agent, version: '1.2' }])
      expect(await store.agents.delete(agent.id)).toBe(true)
      expect(await store.agents.delete(agent.id)).toBe(false)
      expect(await store.agents.ban(agent.id)).toBe(false)
      expect(await store.agents.list()).toEqual([])
    })
  })

  describe('entries', () => {
    it('come back as they were written', async () => {
      const entry = testEntry('e', {
        dnsNames: ['a'],
        federatesWith: ['b.org'],
        hint: 'ż',
        admin: true,
      })
      await store.entries.create(entry)
      expect(await store.entries.some(['e', 'none'])).toEqual([entry])
      expect(await listed((await reopened()).entries.all())).toEqual([entry])
    })

    it('exist once by id, and once by ID, parent and set of selectors', async () => {
      const [a, b] = [
        { type: 'unix', value: 'uid:1' },
        { type: 'unix', value: 'gid:1' },
      ]
      const { spiffeId } = testEntry('x')
      await store.entries.create(testEntry('e', { spiffeId, selectors: [a, b] }))
      const twins = [
        [b, a],
        [a, b, a],
      ]
      for (const selectors of twins) {
        await expect(
          store.entries.create(testEntry('f', { spiffeId, selectors })),
        ).rejects.toMatchObject({
          code: 'ERR_ALREADY_EXISTS',
          message: 'entry e has the same SPIFFE ID, parent and selectors',
        })
      }
      await expect(store.entries.create(testEntry('e'))).rejects.toMatchObject({
        code: 'ERR_ALREADY_EXISTS',
        message: 'entry e exists already',
      })
      await store.entries.create(testEntry('f', { spiffeId, selectors: [a] }))
      await expect(
        store.entries.update('f', (known) => ({ ...known, selectors: [a, b] })),
      ).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' })
      expect((await store.entries.some(['f']))[0]?.selectors).toEqual([a])
    })

    it('are updated from what they are: of two edits at once none is lost', async () => {
      await store.entries.create(testEntry('e'))
      await Promise.all([
        store.entries.update('e', (it) => ({ ...it, hint: 'h', revision: it.revision + 1 })),
        store.entries.update('e', (it) => ({ ...it, admin: true, revision: it.revision + 1 })),
      ])
      expect(await store.entries.some(['e', 'none'])).toEqual([
        testEntry('e', { hint: 'h', admin: true, revision: 2 }),
      ])
      await expect(store.entries.update('none', (it) => it)).rejects.toMatchObject({
        code: 'ERR_NOT_FOUND',
        message: 'entry none not found',
      })
    })

    it('keep their labels, and lose none to an edit beside it', async () => {
      const labelled = testEntry('e', { labels: { app: 'web' } })
      await store.entries.create(labelled)
      await store.entries.create(testEntry('plain'))
      await Promise.all([
        store.entries.update('e', (it) => ({ ...it, labels: { ...it.labels, tier: '' } })),
        store.entries.update('e', (it) => ({ ...it, dnsNames: ['e.example'] })),
      ])
      const [entry, plain] = await listed((await reopened()).entries.all())
      expect(entry).toMatchObject({ labels: { app: 'web', tier: '' }, dnsNames: ['e.example'] })
      expect(plain).toEqual(testEntry('plain'))
      const { kind, key } = (await store.events.after(0, 100)).at(-1) ?? {}
      expect([kind, key]).toEqual(['entry', 'e'])
    })

    it('are deleted once', async () => {
      await store.entries.create(testEntry('e'))
      expect(await store.entries.delete('e')).toBe(true)
      expect(await store.entries.delete('e')).toBe(false)
      expect(await listed(store.entries.all())).toEqual([])
    })
  })

  describe('events', () => {
    it('tell what changed, after the commit, with a cursor that only grows', async () => {
      const told: Event[] = []
      using _ = store.events.subscribe(async (events) => void told.push(...events))
      const start = store.events.last()
      await Promise.all([
        store.entries.create(testEntry('e')),
        store.entries.create(testEntry('f')),
      ])
      await store.entries.update('e', (it) => it)
      await store.entries.delete('f')
      await store.policies.set([{ name: 'p.yaml', text: '' }], by)
      await store.issuance.record(issued(0x41), attested(testAgent('a')))
      await store.authorities.set('jwt', { basedOn: 0, rows: [], removed: [] })
      const kinds = told.map(({ kind, key }) => `${kind} ${key}`.trim())
      expect(kinds).toEqual([
        'entry e',
        'entry f',
        'entry e',
        'entry f',
        'policies 1',
        `agent ${testAgent('a').id}`,
        'bundle jwt',
      ])
      expect(told.map(({ cursor }) => cursor)).toEqual(told.map((_, i) => start + 1 + i))
      expect(await store.events.after(start, 100)).toEqual(told)
      expect(await store.events.after(start + 2, 2)).toEqual(told.slice(2, 4))
      expect(store.events.last()).toBe(told.at(-1)?.cursor)
      expect(await (await reopened()).events.after(start, 100)).toEqual(told)
    })

    it('tell nothing of what failed or changed nothing', async () => {
      await store.entries.create(testEntry('e'))
      const before = store.events.last()
      const told: Event[] = []
      using _ = store.events.subscribe(async (events) => void told.push(...events))
      await Promise.allSettled([
        store.entries.create(testEntry('e')),
        store.entries.delete('none'),
        store.agents.ban(testAgent('a').id),
      ])
      expect(told).toEqual([])
      expect(store.events.last()).toBe(before)
    })
  })

  describe('the store', () => {
    it('keeps its epoch, and another store has another one', async () => {
      const { epoch } = store
      expect((await reopened()).epoch).toBe(epoch)
      await using other = await testStore()
      expect(other.epoch).not.toBe(epoch)
    })

    it('is refused for another trust domain, and stays usable for its own', async () => {
      await store[Symbol.asyncDispose]()
      await expect(testStore({ location, trustDomain: 'other.org' })).rejects.toMatchObject({
        code: 'ERR_STORE',
        message: expect.stringMatching(
          / is the store of trust domain example.org, not of other.org$/,
        ),
      })
      store = await testStore({ location })
    })

    it('has one active authority at most, and changes all slots as one', async () => {
      const row = (id: string, state: AuthorityState, preparedAt: number): AuthorityRow => ({
        ...{ kind: 'x509', id, state, preparedAt, replica: 'r', sealedKey: new Uint8Array() },
        canary: new Uint8Array(),
        taintedAt: state === 'old' ? 5 : 0,
        material: new Uint8Array([preparedAt]),
        notBefore: 10,
        notAfter: 20,
      })
      const { authorities } = store
      const set = async (rows: readonly AuthorityRow[], removed: readonly string[] = []) => {
        const { sequence: basedOn } = await authorities.list('x509')
        return authorities.set('x509', { basedOn, rows, removed })
      }
      const listed = async () => (await authorities.list('x509')).rows
      await set([row('a', 'active', 1), row('b', 'prepared', 2)])
      await set([row('a', 'old', 1), row('b', 'active', 2)])
      expect(await listed()).toEqual([row('a', 'old', 1), row('b', 'active', 2)])
      await expect(set([row('b', 'active', 2), row('c', 'active', 3)], ['a'])).rejects.toThrow(
        /unique constraint/i,
      )
      expect((await listed()).map(({ id }) => id)).toEqual(['a', 'b'])
      // another replica's may be active beside it
      await set([{ ...row('d', 'active', 4), replica: 's' }])
      expect(await listed()).toHaveLength(3)
    })

    it('lets one of two changes to the same authorities win, and tells the other', async () => {
      const change = { basedOn: 0, rows: [], removed: [] }
      const both = await Promise.allSettled([
        store.authorities.set('wit', change),
        store.authorities.set('wit', change),
      ])
      expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
      expect(both.find((it) => it.status === 'rejected')).toMatchObject({
        reason: {
          code: 'ERR_CONFLICT',
          message: 'the authorities of kind wit were changed meanwhile; look at them again',
        },
      })
      // of another kind, nothing was changed
      expect(await store.authorities.set('jwt', change)).toBe(store.events.last())
    })

    it('finds the place of a time in what was issued, and the longest-lived of each holder', async () => {
      const hour = 3_600_000
      const at = (byte: number, hours: number, change: Partial<IssuedRow> = {}) =>
        issued(byte, {
          notBefore: now + hours * hour,
          notAfter: now + (hours + 1) * hour,
          ...change,
        })
      const rows = [at(0x41, -30), at(0x42, -1), at(0x43, 0, { entryId: 'e' }), at(0x44, 0)]
      for (const row of rows) await store.issuance.record(row)
      const { spiffeId } = issued(0x41)
      const valid = await store.issuance.validOf(new Set([spiffeId]), now)
      expect(valid.map((row) => row.serial)).toEqual([serial(0x43), serial(0x44)])
      expect(await store.issuance.validOf(new Set(), now)).toEqual([])
      const live = await store.issuance.live(now)
      expect(live.map(({ isWorkload }) => isWorkload).sort()).toEqual([false, true])
    })

    it('numbers policies, says who set them, and gives the newest set', async () => {
      expect(await store.policies.current()).toEqual({ version: 0, files: [] })
      const files = [{ name: 'a', text: 'x: 1' }]
      expect(await store.policies.set([], by)).toEqual({ version: 1, files: [] })
      const why = { at: now + 1, caller: 'spiffe://example.org/admin', message: 'why' }
      expect(await store.policies.set(files, why)).toEqual({ version: 2, files })
      expect(await (await reopened()).policies.current()).toEqual({ version: 2, files })
      expect(await store.policies.versions()).toEqual([
        { version: 2, ...why },
        { version: 1, ...by },
      ])
    })

    it('keeps the last twenty versions, and no number comes twice', async () => {
      for (let i = 1; i <= 22; i++) await store.policies.set([{ name: String(i), text: '' }], by)
      const kept = (await store.policies.versions()).map(({ version }) => version)
      expect(kept).toEqual(Array.from({ length: 20 }, (_, i) => 22 - i))
      expect(await store.policies.find(2)).toBeUndefined()
      const files = [{ name: '3', text: '' }]
      expect(await store.policies.find(3)).toEqual({ version: 3, files })
      expect(await store.policies.set(files, by)).toEqual({ version: 23, files })
    })

    it('lets one of two changes to the same policies win, and tells the other', async () => {
      await store.policies.set([], by)
      const change = (text: string) =>
        store.policies.set([{ name: 'p', text }], { ...by, basedOn: 1 })
      const both = await Promise.allSettled([change('a'), change('b')])
      expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
      expect(both.find((it) => it.status === 'rejected')).toMatchObject({
        reason: {
          code: 'ERR_CONFLICT',
          message: 'policy version 2 has taken the place of 1; look at it and try again',
        },
      })
    })

    it('keeps what the node of each agent serves, and tells those who follow', async () => {
      const agentId = testAgent('a').id
      const spiffeId = testAgent('b').id
      const endpoints = [{ service: 'shop', spiffeId, address: '192.0.2.1:8443' }]
      const before = store.events.last()
      await store.endpoints.put({ agentId, endpoints })
      const again = await reopened()
      expect(await again.endpoints.list()).toEqual([{ agentId, endpoints }])
      expect(await again.endpoints.get(agentId)).toEqual({ agentId, endpoints })
      expect(await again.events.after(before, 10)).toMatchObject([
        { kind: 'endpoints', key: agentId },
      ])
      await again.endpoints.put({ agentId, endpoints: [] })
      expect(await again.endpoints.list()).toEqual([])
    })

    it('knows which policies agents say are in use, until they are away', async () => {
      const [a, b] = [testAgent('a').id, testAgent('b').id]
      const point = { spiffeId: 'spiffe://example.org/web', pid: 7, version: 3, refusal: '' }
      const row = (agentId: typeof a, version: number) => ({
        ...{ agentId, replica: store.replica, points: [{ ...point, version }] },
      })
      await store.enforcement.put([row(a, 3), row(b, 3)])
      await store.enforcement.put([row(a, 4)])
      expect(await (await reopened()).enforcement.list()).toEqual([row(a, 4), row(b, 3)])
      await store.enforcement.remove([a])
      expect(await store.enforcement.list()).toEqual([row(b, 3)])
    })
  })
})

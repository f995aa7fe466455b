import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { hashOfToken } from '../../../ca/attestors/join-token.ts'
import { openSqliteStore } from '../../../ca/store/sqlite/store.ts'
import type { AgentRow, Event, IssuedRow, Store } from '../../../ca/store/store.ts'
import { serialOf } from '../../../spiffe/certificate.ts'
import { testFolder } from '../../support/ca.ts'
import { testAgent, testEntry } from '../../support/rows.ts'

const now = 1_900_000_000_000
const serial = (byte: number) => serialOf(Buffer.alloc(16, byte))
const hash = hashOfToken('some-join-token')
const unusable = {
  code: 'ERR_JOIN_TOKEN',
  message: 'join token does not exist, has expired or has already been used',
}

let folder: ReturnType<typeof testFolder>
let path: string
let store: Store
beforeEach(async () => {
  folder = testFolder()
  path = join(folder.path, 'castellan.db')
  store = await openSqliteStore(path, 'example.org')
})
afterEach(() => {
  store[Symbol.dispose]()
  folder[Symbol.dispose]()
})

async function reopened(): Promise<Store> {
  store[Symbol.dispose]()
  store = await openSqliteStore(path, 'example.org')
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

describe('issued certificates', () => {
  it('are found by serial and by ID, the longest-lived first, after a restart too', async () => {
    const other = testAgent('b').id
    await Promise.all([0x41, 0x43, 0x42].map((byte) => store.issuance.record(issued(byte))))
    await store.issuance.record(issued(0x44, { spiffeId: other }))
    const holdsAll = () => {
      const { id: spiffeId } = testAgent('a')
      const found = store.issuance.find({ spiffeId, limit: 2 })
      expect(found).toEqual([issued(0x43), issued(0x42)])
      expect(store.issuance.find({ serial: serial(0x44), limit: 1 })).toEqual([
        issued(0x44, { spiffeId: other }),
      ])
      expect(store.issuance.find({ serial: serial(0x45), limit: 1 })).toEqual([])
    }
    holdsAll()
    await reopened()
    holdsAll()
  })

  it('never share a serial', async () => {
    await store.issuance.record(issued(0x41))
    await expect(store.issuance.record(issued(0x41, { entryId: 'x' }))).rejects.toThrow(
      'UNIQUE constraint failed: issued.serial',
    )
    expect(store.issuance.find({ serial: serial(0x41), limit: 2 })).toEqual([issued(0x41)])
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
    expect(store.agents.list()).toEqual([agent])
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
    expect(store.agents.get(agent.id)).toEqual({
      ...agent,
      pendingSerial: serial(0x42),
      notAfter: now + 7,
    })
    await store.agents.promote(agent.id, serial(0x43))
    expect(store.agents.get(agent.id)?.serial).toBe(serial(0x41))
    await store.agents.promote(agent.id, serial(0x42))
    expect((await reopened()).agents.get(agent.id)).toEqual({
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
    expect(store.agents.get(agent.id)).toEqual(banned)
    const message = `${agent.id} was banned or deleted meanwhile`
    await expect(
      store.issuance.record(issued(0x44), {
        kind: 'renewed',
        id: agent.id,
        serial: serial(0x44),
        notAfter: now,
      }),
    ).rejects.toMatchObject({ code: 'ERR_AGENT_BANNED', message })
    expect(store.issuance.find({ serial: serial(0x44), limit: 1 })).toEqual([])
  })

  it('say their version, are deleted, and are not there twice', async () => {
    expect(await store.agents.setVersion(agent.id, '1.2')).toBe(true)
    expect(store.agents.list()).toEqual([{ ...agent, version: '1.2' }])
    expect(await store.agents.delete(agent.id)).toBe(true)
    expect(await store.agents.delete(agent.id)).toBe(false)
    expect(await store.agents.ban(agent.id)).toBe(false)
    expect(store.agents.list()).toEqual([])
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
    expect(store.entries.get('e')).toEqual(entry)
    expect((await reopened()).entries.list()).toEqual([entry])
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
    expect(store.entries.get('f')?.selectors).toEqual([a])
  })

  it('are updated from what they are: of two edits at once none is lost', async () => {
    await store.entries.create(testEntry('e'))
    await Promise.all([
      store.entries.update('e', (it) => ({ ...it, hint: 'h', revision: it.revision + 1 })),
      store.entries.update('e', (it) => ({ ...it, admin: true, revision: it.revision + 1 })),
    ])
    expect(store.entries.get('e')).toEqual(testEntry('e', { hint: 'h', admin: true, revision: 2 }))
    await expect(store.entries.update('none', (it) => it)).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: 'entry none not found',
    })
  })

  it('are deleted once', async () => {
    await store.entries.create(testEntry('e'))
    expect(await store.entries.delete('e')).toBe(true)
    expect(await store.entries.delete('e')).toBe(false)
    expect(store.entries.list()).toEqual([])
  })
})

describe('events', () => {
  it('tell what changed, after the commit, with a cursor that only grows', async () => {
    const told: Event[] = []
    using _ = store.events.subscribe((events) => told.push(...events))
    const start = store.events.last()
    await Promise.all([store.entries.create(testEntry('e')), store.entries.create(testEntry('f'))])
    await store.entries.update('e', (it) => it)
    await store.entries.delete('f')
    await store.policies.set([{ name: 'p.yaml', text: '' }], now)
    await store.issuance.record(issued(0x41), attested(testAgent('a')))
    await store.authorities.set([], [])
    const kinds = told.map(({ kind, key }) => `${kind} ${key}`.trim())
    expect(kinds).toEqual([
      'entry e',
      'entry f',
      'entry e',
      'entry f',
      'policies 1',
      `agent ${testAgent('a').id}`,
      'bundle',
    ])
    expect(told.map(({ cursor }) => cursor)).toEqual(told.map((_, i) => start + 1 + i))
    expect(store.events.after(start, 100)).toEqual(told)
    expect(store.events.after(start + 2, 2)).toEqual(told.slice(2, 4))
    expect(store.events.last()).toBe(told.at(-1)?.cursor)
    expect((await reopened()).events.after(start, 100)).toEqual(told)
  })

  it('tell nothing of what failed or changed nothing', async () => {
    await store.entries.create(testEntry('e'))
    const before = store.events.last()
    const told: Event[] = []
    using _ = store.events.subscribe((events) => told.push(...events))
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
    using other = await openSqliteStore(':memory:', 'example.org')
    expect(other.epoch).not.toBe(epoch)
  })

  it('is refused for another trust domain, and stays usable for its own', async () => {
    store[Symbol.dispose]()
    await expect(openSqliteStore(path, 'other.org')).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: `${path} is the store of trust domain example.org, not of other.org`,
    })
    store = await openSqliteStore(path, 'example.org')
  })

  it('has one active authority at most, and changes all slots as one', async () => {
    const row = (id: string, state: 'prepared' | 'active' | 'old', preparedAt: number) => ({
      kind: 'x509' as const,
      id,
      state,
      taintedAt: state === 'old' ? 5 : 0,
      material: new Uint8Array([preparedAt]),
      notBefore: 10,
      notAfter: 20,
      preparedAt,
    })
    await store.authorities.set([row('a', 'active', 1), row('b', 'prepared', 2)], [])
    await store.authorities.set([row('a', 'old', 1), row('b', 'active', 2)], [])
    expect(store.authorities.list()).toEqual([row('a', 'old', 1), row('b', 'active', 2)])
    await expect(
      store.authorities.set([row('b', 'active', 2), row('c', 'active', 3)], ['a']),
    ).rejects.toThrow('UNIQUE constraint failed')
    expect(store.authorities.list().map(({ id }) => id)).toEqual(['a', 'b'])
  })

  it('numbers policies, and gives the newest set', async () => {
    expect(store.policies.current()).toEqual({ version: 0, files: [] })
    const files = [{ name: 'a', text: 'x: 1' }]
    expect(await store.policies.set([], now)).toEqual({ version: 1, files: [] })
    expect(await store.policies.set(files, now)).toEqual({ version: 2, files })
    expect((await reopened()).policies.current()).toEqual({ version: 2, files })
  })
})

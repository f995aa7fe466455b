import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Authorities, openAuthorities } from '../../../ca/authorities/authorities.ts'
import type { KeyKeeper } from '../../../ca/authorities/keys.ts'
import type { Store } from '../../../ca/store/store.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { parseTrustDomain } from '../../../spiffe/id.ts'
import { createFakeClock, type FakeClock } from '../../support/fake-clock.ts'
import { refusalOf } from '../../support/refusal.ts'
import { testStore } from '../../support/store.ts'

const trustDomain = parseTrustDomain('example.org')
const start = Date.UTC(2031, 4, 17, 12)
const hour = 3_600_000
const lifetime = 168 * hour

let saved: Map<string, KeyObject>
let savedTokens: { jwt: Map<string, KeyObject>; wit: Map<string, KeyObject> }
let known: boolean
let store: Store
let clock: FakeClock
let opened: Authorities | undefined
let authorities: Authorities

/** Keys in memory: sealing is slow by design, and keys.test.ts has it. */
const folder = (all: () => Map<string, KeyObject>): KeyKeeper => ({
  save(id, key) {
    all().set(id, key)
    return new Uint8Array()
  },
  load: (id) => all().get(id) ?? missing(id),
  keepOnly(ids) {
    for (const id of all().keys()) if (!ids.includes(id)) all().delete(id)
  },
})
const keys = folder(() => saved)
const otherKeys = { jwt: folder(() => savedTokens.jwt), wit: folder(() => savedTokens.wit) }

function missing(id: string): never {
  throw new IdentityError('ERR_SEALED', `no key ${id}`)
}

async function open(): Promise<Authorities> {
  opened?.[Symbol.dispose]()
  opened = await openAuthorities({
    trustDomain,
    store,
    keys: (kind) => (kind === 'x509' ? keys : otherKeys[kind]),
    clock,
    lifetime,
    isKnown: async () => known,
  })
  authorities = opened
  return authorities
}

beforeEach(async () => {
  saved = new Map()
  savedTokens = { jwt: new Map(), wit: new Map() }
  known = true
  opened = undefined
  store = await testStore()
  clock = createFakeClock(start)
  await open()
})
afterEach(() => store[Symbol.asyncDispose]())

const states = () => authorities.all().map(({ state }) => state)
const idsOf = (list: readonly { readonly id: string }[]) => list.map(({ id }) => id)
const inBundle = () => authorities.bundle().authorities.map(({ serial }) => serial)
const serials = () => authorities.all().map(({ certificate }) => certificate.serial)
const keyIds = () => [...saved.keys()]

async function at(part: number): Promise<readonly string[]> {
  await clock.advance(start + part * lifetime - clock.now())
  return authorities.advance()
}

describe('X.509 authorities', () => {
  it('begin with an active one', async () => {
    expect(states()).toEqual(['active'])
    const { certificate, id } = authorities.active()
    expect(certificate.notBefore).toBe(start - 60_000)
    expect(certificate.notAfter).toBe(start + lifetime)
    expect(inBundle()).toEqual([certificate.serial])
    expect(keyIds()).toEqual([id])
    expect(await authorities.advance()).toEqual([])
  })

  it('FE-1 FE-2 are renewed by time: prepared at half, active at 5/6, forgotten when expired', async () => {
    const [first] = idsOf(authorities.all())
    expect(await at(0.49)).toEqual([])
    expect(await at(0.5)).toEqual(['prepared a new authority'])
    expect(states()).toEqual(['active', 'prepared'])
    expect(inBundle(), 'both in the bundle before the new one signs').toEqual(serials())
    expect(authorities.active().id).toBe(first)
    const second = idsOf(authorities.all())[1]
    expect(await at(0.83)).toEqual([])
    expect(authorities.active().id).toBe(first)
    expect(await at(0.834)).toEqual(['activated the prepared authority'])
    expect(states()).toEqual(['old', 'active'])
    expect(authorities.active().id).toBe(second)
    expect(inBundle(), 'both in the bundle while leaves of the old one live').toEqual(serials())
    expect(await at(0.9999)).toEqual([])
    expect(keyIds().sort()).toEqual(idsOf(authorities.all()).sort())
    // half of the second one's life begins half a life after it was prepared
    expect(await at(1.0001)).toEqual(['prepared a new authority', 'forgot an expired authority'])
    expect(states()).toEqual(['active', 'prepared'])
    expect(idsOf(authorities.all())[0]).toBe(second)
    expect(inBundle()).toEqual(serials())
    expect(keyIds().sort()).toEqual(idsOf(authorities.all()).sort())
  })

  it('say each change, in the store, in the bundle’s sequence and to those who listen', async () => {
    const seen: string[] = []
    using _ = authorities.onChange(() => void seen.push(states().join()))
    const before = authorities.sequence
    const events = store.events.last()
    await at(0.5)
    await at(0.84)
    await at(1.01)
    expect(seen).toEqual([
      'active,prepared',
      'old,active',
      'old,active,prepared',
      'active,prepared',
    ])
    expect(authorities.sequence).toBe(before + 4)
    const kinds = (await store.events.after(events, 10)).map(({ kind }) => kind)
    expect(kinds).toEqual(['bundle', 'bundle', 'bundle', 'bundle'])
  })

  it('never sign with one that was not prepared a twelfth of a life ago, while there is time', async () => {
    expect(await at(0.9)).toEqual(['prepared a new authority'])
    expect(await at(0.94)).toEqual([])
    expect(await at(0.951)).toEqual(['activated the prepared authority'])
  })

  it('sign as soon as there is need: after a long sleep nothing valid is left', async () => {
    await clock.advance(2 * lifetime)
    expect(refusalOf(authorities.active)).toEqual({
      code: 'ERR_UNAVAILABLE',
      message: 'no authority is active and valid',
    })
    expect(await authorities.advance()).toEqual([
      'prepared a new authority',
      'activated the prepared authority',
      'forgot an expired authority',
    ])
    expect(states()).toEqual(['active'])
    expect(authorities.active().certificate.notBefore).toBe(clock.now() - 60_000)
  })
})

describe('acknowledgement', () => {
  it('holds an activation back for as long as the one in force is valid', async () => {
    await at(0.5)
    known = false
    expect(await at(0.99)).toEqual([])
    expect(states()).toEqual(['active', 'prepared'])
    known = true
    opened = undefined
    expect(await authorities.advance()).toEqual(['activated the prepared authority'])
  })

  it('is not waited for once nothing else could sign', async () => {
    await at(0.5)
    known = false
    expect(await at(1.01)).toContain('activated the prepared authority')
  })
})

describe('an operator', () => {
  const permit = async () => undefined

  it('replaces what is prepared, and moves it on in order only', async () => {
    const [first = ''] = idsOf(authorities.all())
    await clock.advance(1000)
    const dropped = await authorities.prepare()
    const next = await authorities.prepare()
    expect(idsOf(authorities.all())).toEqual([first, next.id])
    await expect(authorities.activate(dropped.id, permit)).rejects.toThrow(
      'is unknown, not prepared',
    )
    await expect(authorities.taint(first)).rejects.toThrow('is active, not old')
    await authorities.activate(next.id, permit)
    await expect(authorities.revoke(first, permit)).rejects.toThrow('taint it first')
    await authorities.taint(first)
    expect(authorities.all().map(({ isTainted }) => isTainted)).toEqual([true, false])
    await open()
    expect(authorities.all().map(({ isTainted }) => isTainted)).toEqual([true, false])
    await authorities.revoke(first, permit)
    expect(idsOf(authorities.all())).toEqual([next.id])
    expect(keyIds()).toEqual([next.id])
  })

  it('takes one step after the other, however many are asked for at once', async () => {
    const [first = ''] = idsOf(authorities.all())
    await clock.advance(1)
    const next = await authorities.prepare()
    await authorities.activate(next.id, permit)
    await authorities.taint(first)
    await clock.advance(1)
    const [prepared] = await Promise.all([
      authorities.prepare(),
      authorities.revoke(first, permit),
      authorities.advance(),
    ])
    expect(idsOf(authorities.all())).toEqual([next.id, prepared.id])
    expect([...keyIds()].sort()).toEqual([next.id, prepared.id].sort())
    const [moved] = await Promise.all([
      authorities.activate(prepared.id, permit),
      authorities.prepare(),
    ])
    expect(moved.state).toBe('active')
    expect(authorities.active().id).toBe(prepared.id)
    await open()
    expect(authorities.active().id).toBe(prepared.id)
  })

  it('is stopped by whoever has to permit, and nothing has changed then', async () => {
    await clock.advance(1)
    const next = await authorities.prepare()
    const refuse = () => {
      throw new IdentityError('ERR_PRECONDITION', 'not yet')
    }
    await expect(authorities.activate(next.id, refuse)).rejects.toThrow('not yet')
    expect(states()).toEqual(['active', 'prepared'])
  })
})

describe('keys for tokens', () => {
  it('rotate as X.509 authorities do, three at most of each kind', async () => {
    const { jwt } = authorities
    expect(jwt.all()).toHaveLength(1)
    await clock.advance(lifetime * 0.5)
    expect(await jwt.advance()).toEqual(['prepared a new authority'])
    await clock.advance(lifetime * 0.34)
    expect(await jwt.advance()).toEqual(['activated the prepared authority'])
    await jwt.prepare()
    await jwt.activate(jwt.all()[2]?.id ?? '', async () => undefined)
    await expect(jwt.prepare()).rejects.toThrow('revoke an old one first')
    expect([...savedTokens.jwt.keys()].sort()).toEqual(idsOf(jwt.all()).sort())
    expect(idsOf(authorities.wit.all())).toEqual([...savedTokens.wit.keys()])
  })
})

describe('a restart', () => {
  it('in the middle of a renewal goes on where it was', async () => {
    await at(0.5)
    const before = authorities.all()
    await open()
    expect(idsOf(authorities.all())).toEqual(idsOf(before))
    expect(states()).toEqual(['active', 'prepared'])
    for (const [i, { key }] of authorities.all().entries()) {
      expect(key && before[i]?.key?.equals(key)).toBe(true)
    }
    expect(inBundle()).toEqual(serials())
    expect(await authorities.advance()).toEqual([])
    expect(await at(0.84)).toEqual(['activated the prepared authority'])
    await open()
    expect(states()).toEqual(['old', 'active'])
  })

  it('removes the key of an authority that a crash kept out of the store', async () => {
    keys.save('0123', generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey)
    const ids = idsOf(authorities.all())
    expect(keyIds()).toEqual([...ids, '0123'])
    await open()
    expect(keyIds()).toEqual(ids)
    expect(idsOf(authorities.all())).toEqual(ids)
  })

  it('is refused when a key is missing: nothing is made up instead', async () => {
    const [id = ''] = idsOf(authorities.all())
    keys.keepOnly([])
    await expect(open()).rejects.toThrow(new IdentityError('ERR_SEALED', `no key ${id}`))
    const { rows } = await store.authorities.list('x509')
    expect(rows.map((row) => row.id)).toEqual([id])
  })

  it('keeps the sequence of the bundle growing', async () => {
    await at(0.5)
    const before = authorities.sequence
    await open()
    expect(authorities.sequence).toBe(before)
    await at(0.84)
    expect(authorities.sequence).toBeGreaterThan(before)
  })
})

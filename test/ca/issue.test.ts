// The procedure of issuance as a whole, on a real store in memory.
import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { vouch } from '../../ca/attestors/attestor.ts'
import { hashOfToken } from '../../ca/attestors/join-token.ts'
import type { Authority } from '../../ca/authorities/authorities.ts'
import type { Signing } from '../../ca/authorities/slot.ts'
import { type GrantTerms, type IssueSteps, issue } from '../../ca/issue.ts'
import type { IssuanceTable, Store } from '../../ca/store/store.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { makeCsr } from '../support/csr.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { testSigner } from '../support/leaf.ts'
import { testStore } from '../support/store.ts'

const now = Date.UTC(2031, 4, 17, 12)
const clock = createFakeClock(now)
const id = parseSpiffeId('spiffe://example.org/ns/default/sa/payments')
const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const csr = makeCsr(keys)
const self = () => vouch({ kind: 'self' })
const hash = hashOfToken('a-token-of-some-length')

let signer: Signing<Authority>
let store: Store
beforeAll(async () => {
  signer = await testSigner(now)
})
beforeEach(async () => {
  store = await testStore()
})
afterEach(() => store[Symbol.asyncDispose]())

const terms = (change: Partial<GrantTerms> = {}): GrantTerms => ({
  spiffeId: id,
  dnsNames: [],
  lifetime: 3_600_000,
  entryId: 'entry',
  requester: 'spiffe://example.org/spire/agent/a',
  ...change,
})

const steps = (change: Partial<IssueSteps> = {}, granted = terms()): IssueSteps => ({
  clock,
  table: store.issuance,
  signer: () => signer,
  decide: () => granted,
  audit: () => {},
  ...change,
})

/** The table, with the names of what was called written down. */
function watched(
  calls: string[],
  { reserve, record, release, ...rest }: IssuanceTable,
): IssuanceTable {
  return {
    ...rest,
    async reserve(...given) {
      await reserve(...given)
      calls.push('reserved on disk')
    },
    async record(...given) {
      await record(...given)
      calls.push('recorded on disk')
    },
    async release(...given) {
      await release(...given)
      calls.push('released')
    },
  }
}

const recorded = async (spiffeId = id) =>
  (await store.issuance.list({ spiffeId, since: 0, limit: 10 })).rows

describe('issuance', () => {
  it('goes through its steps in order, and the disk is ahead of each', async () => {
    const calls: string[] = []
    await issue(
      csr,
      self(),
      steps({
        table: watched(calls, store.issuance),
        decide: () => {
          calls.push('decided')
          return terms()
        },
        signer: () => {
          calls.push('signer chosen')
          return signer
        },
        audit: () => void calls.push('audited'),
        between: (step) => void calls.push(`between: ${step}`),
      }),
    )
    expect(calls).toEqual([
      'decided',
      'signer chosen',
      'reserved on disk',
      'between: reserved',
      'between: signed',
      'recorded on disk',
      'between: recorded',
      'audited',
    ])
  })

  it('delivers what is recorded, byte for byte', async () => {
    const audited: unknown[] = []
    const change = { dnsNames: ['payments.example'] }
    const made = await issue(
      csr,
      self(),
      steps({ audit: (it) => void audited.push(it) }, terms(change)),
    )
    const row = await store.issuance.find(made.serial)
    const leaf = parseCertificate(made.chain[0])
    expect(row).toEqual({
      serial: leaf.serial,
      spiffeId: id,
      authorityId: signer.id,
      requester: 'spiffe://example.org/spire/agent/a',
      entryId: 'entry',
      notBefore: now - 60_000,
      notAfter: now + 3_600_000,
      certificate: new Uint8Array(made.chain[0]),
    })
    expect(made).toMatchObject({ spiffeId: id, serial: leaf.serial, notAfter: leaf.notAfter })
    expect(leaf.publicKey).toEqual(keys.publicKey.export({ format: 'der', type: 'spki' }))
    const { requester, entryId } = terms()
    expect(audited).toEqual([{ ...made, requester, entryId }])
  })

  it('backdates by 60 s, by less what lives less, and never beyond its authority', async () => {
    const lived = async (lifetime: number, at = now) => {
      const short = createFakeClock(at)
      const made = await issue(csr, self(), steps({ clock: short }, terms({ lifetime })))
      const { notBefore, notAfter } = parseCertificate(made.chain[0])
      return [(notBefore - at) / 1000, (notAfter - at) / 1000]
    }
    expect(await lived(3_600_000)).toEqual([-60, 3600])
    expect(await lived(40_000)).toEqual([-4, 40])
    const { notBefore, notAfter } = signer.certificate
    expect(await lived(3_600_000, notAfter - 10_000)).toEqual([-60, 10])
    expect(await lived(3_600_000, notBefore + 5000)).toEqual([-5, 3600])
  })

  it('ID-16 carries an ID of 2048 bytes to the record and into the leaf', async () => {
    const longest = parseSpiffeId(`spiffe://example.org/${'x'.repeat(2027)}`)
    const made = await issue(csr, self(), steps({}, terms({ spiffeId: longest })))
    expect(longest).toHaveLength(2048)
    expect(parseCertificate(made.chain[0]).names).toEqual([{ kind: 'uri', value: longest }])
    expect((await recorded(longest))[0]?.serial).toBe(made.serial)
  })
})

describe('nothing is issued', () => {
  it('without a proof: nobody decides, nothing is reserved', async () => {
    const calls: string[] = []
    const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const bad = makeCsr(keys, { signingKey: other.privateKey })
    const decide = () => {
      calls.push('decided')
      return terms()
    }
    const table = watched(calls, store.issuance)
    await expect(issue(bad, self(), steps({ decide, table }))).rejects.toThrow(
      new IdentityError('ERR_CSR', 'CSR refused: its signature is not by its own key'),
    )
    expect(calls).toEqual([])
  })

  it('for facts that no attestor vouched for', async () => {
    const forged = { ...self() }
    await expect(issue(csr, forged, steps())).rejects.toThrow(
      new TypeError('a attestation that is forged or already spent'),
    )
    expect(await recorded()).toEqual([])
  })

  it('against a decision', async () => {
    const calls: string[] = []
    const denied = new IdentityError('ERR_DENIED', 'not for you')
    const decide = () => {
      throw denied
    }
    const table = watched(calls, store.issuance)
    await expect(issue(csr, self(), steps({ decide, table }))).rejects.toBe(denied)
    expect(calls).toEqual([])
  })

  it.each([
    ['reserved', ['reserved on disk', 'released']],
    ['signed', ['reserved on disk', 'released']],
  ] as const)('when it is stopped after %s, and the token is good again', async (at, wanted) => {
    await store.issuance.createToken({ hash, expiresAt: now + 1 })
    const calls: string[] = []
    const stop = new Error(`stopped after ${at}`)
    const between = (step: string) => {
      if (step === at) throw stop
    }
    const token = { hash, now }
    const table = watched(calls, store.issuance)
    const attempt = issue(csr, self(), steps({ table, between }, terms({ token })))
    await expect(attempt).rejects.toBe(stop)
    expect(calls).toEqual(wanted)
    expect(await recorded()).toEqual([])
    const again = await issue(csr, self(), steps({}, terms({ token })))
    expect((await recorded()).map(({ serial }) => serial)).toEqual([again.serial])
  })

  it('when recording fails: the reason of the failure is told, not that of the clean-up', async () => {
    const failure = new IdentityError('ERR_STORE', 'the store failed: disk full')
    const table: IssuanceTable = {
      ...store.issuance,
      record: () => Promise.reject(failure),
      release: () => Promise.reject(new IdentityError('ERR_STORE', 'the store failed again')),
    }
    await store.issuance.createToken({ hash, expiresAt: now + 1 })
    const granted = terms({ token: { hash, now } })
    await expect(issue(csr, self(), steps({ table }, granted))).rejects.toBe(failure)
  })

  it('with a token twice, and what the loser reserved is not the winner’s to lose', async () => {
    await store.issuance.createToken({ hash, expiresAt: now + 1 })
    const granted = terms({ token: { hash, now } })
    const all = await Promise.allSettled(
      [1, 2, 3].map(() => issue(csr, self(), steps({}, granted))),
    )
    expect(all.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected', 'rejected'])
    const refusal = new IdentityError(
      'ERR_JOIN_TOKEN',
      'join token does not exist, has expired or has already been used',
    )
    for (const it of all) if (it.status === 'rejected') expect(it.reason).toEqual(refusal)
  })

  it('while no authority is active', async () => {
    const missing = new IdentityError('ERR_UNAVAILABLE', 'no authority is active and valid')
    const none = () => {
      throw missing
    }
    await expect(issue(csr, self(), steps({ signer: none }))).rejects.toBe(missing)
  })

  it('that its own linter finds wrong: reserved, never signed', async () => {
    // the writer keeps one byte of each character, so this name cannot be in what it wrote
    const attempt = issue(csr, self(), steps({}, terms({ dnsNames: ['ż.example'] })))
    await expect(attempt).rejects.toThrow(
      new IdentityError(
        'ERR_LINT',
        `a leaf for ${id} was not signed: broken rule "critical SAN with the granted names and no other"`,
      ),
    )
    expect(await recorded()).toEqual([])
  })
})

describe('what changes with a certificate', () => {
  it('is written with it or not at all', async () => {
    let kept: { serial: string } | undefined
    const granted = terms({
      change: (it) => {
        kept = it
        return { kind: 'renewed', id, serial: it.serial, notAfter: it.notAfter }
      },
    })
    // the change names an agent that does not exist, so the record is refused as a whole
    await expect(issue(csr, self(), steps({}, granted))).rejects.toMatchObject({
      code: 'ERR_AGENT_BANNED',
    })
    expect(kept?.serial).toMatch(/^[0-9a-f]{32}$/)
    expect(await recorded()).toEqual([])
  })
})

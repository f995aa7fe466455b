// bench issue: a leaf's whole procedure (CSR check, grant, lint, signature, read-back) beside the one
// verification and the one signature that nobody can do without; then with the store under it.
import { createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { vouch } from '../ca/attestors/attestor.ts'
import { type Authority, lonelyAuthority } from '../ca/authorities/authorities.ts'
import type { Signing } from '../ca/authorities/slot.ts'
import { type IssueSteps, issue } from '../ca/issue.ts'
import { createBatch } from '../ca/store/batch.ts'
import { openStore } from '../ca/store/open.ts'
import type { IssuanceTable } from '../ca/store/store.ts'
import { systemClock } from '../runtime/clock.ts'
import { bareCsr, type KeyPair } from '../spiffe/csr.ts'
import { parseSpiffeId, parseTrustDomain } from '../spiffe/id.ts'
import { testFolder } from '../test/support/folder.ts'
import { type Bench, type BenchResult, interleave, rounded } from './measure.ts'

const goal = 1.5
const durableGoal = 0.75
const inFlight = 32
const perRound = 64
const perRate = 128
const rounds = 61

const trustDomain = parseTrustDomain('bench.example')
const spiffeId = parseSpiffeId('spiffe://bench.example/ns/default/sa/payments')
const hour = 3_600_000

interface Asked {
  readonly csr: Uint8Array
  /** SubjectPublicKeyInfo as PEM: a key that is new to OpenSSL each time, as a real CSR's is */
  readonly pem: string
  /** over `signed`, with the key of the CSR */
  readonly signature: Uint8Array
}

// about the size of a leaf's to-be-signed bytes
const signed = Buffer.alloc(400, 'castellan')

function ask(keys: KeyPair): Asked {
  const pem = createPublicKey(keys.privateKey).export({ format: 'pem', type: 'spki' }).toString()
  return { csr: bareCsr(keys), pem, signature: sign('sha256', signed, keys.privateKey) }
}

async function makeSigner(): Promise<Signing<Authority>> {
  const now = Date.now()
  return await lonelyAuthority(trustDomain, now, now + 24 * hour)
}

/** What is left of a store when nothing has to last. */
function forgetful(table: IssuanceTable): IssuanceTable {
  const forget = () => Promise.resolve()
  return { ...table, reserve: forget, record: forget, release: forget }
}

/** What the disk alone allows: the bytes of each turn written to a file and made durable. */
function bareDisk(table: IssuanceTable, path: string): IssuanceTable & Disposable {
  const file = openSync(path, 'w')
  const bytes = Buffer.alloc(inFlight * 1024)
  const written = (each: number) =>
    createBatch<unknown>(async (items) => {
      writeSync(file, bytes, 0, items.length * each, 0)
      fdatasyncSync(file)
    })
  const [reserve, record] = [written(100), written(1024)]
  return { ...table, reserve, record, [Symbol.dispose]: () => closeSync(file) }
}

function stepsOn(table: IssuanceTable, signer: Signing<Authority>): IssueSteps {
  const terms = { spiffeId, dnsNames: [], lifetime: hour, entryId: 'bench', requester: 'bench' }
  return { clock: systemClock, table, signer: () => signer, decide: () => terms, audit: () => {} }
}

/** Issues `count` leaves with `inFlight` of them under way. */
async function issueMany(asked: readonly Asked[], steps: IssueSteps, count: number): Promise<void> {
  const attested = vouch({ kind: 'self' })
  let next = 0
  async function caller() {
    while (next < count) {
      const { csr } = asked[next++ % asked.length] ?? { csr: signed }
      await issue(csr, attested, steps)
    }
  }
  await Promise.all(Array.from({ length: inFlight }, caller))
}

function bareMany(asked: readonly Asked[], { key }: Signing<Authority>): void {
  for (let i = 0; i < perRound; i++) {
    const it = asked[i % asked.length]
    if (it === undefined || !verify('sha256', signed, it.pem, it.signature)) {
      throw new TypeError('a signature that does not verify')
    }
    sign('sha256', signed, key)
  }
}

/** CPU microseconds per certificate, user and system. */
async function cpuOf(work: () => void | Promise<void>): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / perRound
}

/** Certificates per second. */
async function rateOf(work: () => Promise<void>): Promise<number> {
  const before = performance.now()
  await work()
  return (perRate * 1000) / (performance.now() - before)
}

async function run(): Promise<BenchResult> {
  using folder = testFolder()
  await using store = await openStore(
    { path: join(folder.path, 'castellan.db') },
    { trustDomain, clock: systemClock, replica: '' },
  )
  const signer = await makeSigner()
  const asked = Array.from({ length: 64 }, () =>
    ask(generateKeyPairSync('ec', { namedCurve: 'prime256v1' })),
  )
  using disk = bareDisk(store.issuance, join(folder.path, 'bare'))
  const inMemory = stepsOn(forgetful(store.issuance), signer)
  const durable = stepsOn(store.issuance, signer)
  const onDisk = stepsOn(disk, signer)
  const [bare = Number.NaN, whole = Number.NaN, ...rates] = await interleave(
    [
      { name: 'verify + sign', run: () => cpuOf(() => bareMany(asked, signer)) },
      { name: 'issue', run: () => cpuOf(() => issueMany(asked, inMemory, perRound)) },
      { name: 'rate', run: () => rateOf(() => issueMany(asked, inMemory, perRate)) },
      { name: 'disk rate', run: () => rateOf(() => issueMany(asked, onDisk, perRate)) },
      { name: 'durable rate', run: () => rateOf(() => issueMany(asked, durable, perRate)) },
    ],
    rounds,
    20,
  )
  const [fast = Number.NaN, limit = Number.NaN, slow = Number.NaN] = rates
  const [ratio, kept] = [whole / bare, slow / fast]
  const rate = (what: string, perSecond: number) => ({
    what: `issue, ${inFlight} in flight, ${what}`,
    'per second': rounded(perSecond, 0),
    ratio: rounded(perSecond / fast),
  })
  return {
    rows: [
      { what: 'one verify + one sign', 'CPU µs': rounded(bare), ratio: 1 },
      { what: 'issue, no store', 'CPU µs': rounded(whole), ratio: rounded(ratio) },
      rate('no store', fast),
      rate('a bare write and fdatasync for each commit', limit),
      rate(`durable (goal ${durableGoal})`, slow),
    ],
    figure: rounded(ratio),
    unit: `× one verify + one sign, and durable at ${rounded(kept)} × the rate without the store`,
    goal,
    peer: { name: 'verify + sign, µs', figure: rounded(bare) },
    ok: ratio <= goal && kept >= durableGoal,
  }
}

export const issueBench: Bench = { name: 'issue', run }

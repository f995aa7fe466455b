// What an agent keeps: it comes back whole, what is damaged is thrown away, and a disk that takes nothing is said.
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { create, equals } from '@bufbuild/protobuf'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Kept, type KeptIdentities, openDiskCache, type Part } from '../../agent/disk-cache.ts'
import { AuthorityMessageSchema } from '../../proto/gen/castellan/control/v1/control_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { sealingSecret } from '../../runtime/sealed.ts'
import { memoryLog } from '../support/ca.ts'
import { testFolder } from '../support/folder.ts'

const patience = { timeout: 30_000, interval: 50 }
const secret = sealingSecret(randomBytes(32))
const message = create(AuthorityMessageSchema, {
  ...{ cursor: 7n, epoch: 'one', snapshot: true },
  entries: [{ id: 'web', spiffeId: { trustDomain: 'example.org', path: '/web' } }],
})
const identities: KeptIdentities = {
  svids: [
    {
      ...{ entryId: 'web', revision: 2n ** 60n, receivedAt: 5 },
      chain: [Buffer.from('leaf'), new Uint8Array([1, 2])],
      key: Buffer.from('the key of the workload'),
    },
  ],
  tokens: [{ key: 'k', token: 'a.b.c', holder: Buffer.from('h'), receivedAt: 1, expiresAt: 2 }],
}
const cuts = { 'envoy web.yaml inbound': { cut: 'c', known: ['a', 'b'] } }
const kept: Kept = { knowledge: () => message, identities: () => identities, cuts: () => cuts }

let root: ReturnType<typeof testFolder>
let folder: string
beforeEach(() => {
  root = testFolder()
  folder = join(root.path, 'state')
  mkdirSync(folder)
})
afterEach(() => root[Symbol.dispose]())

const open = (log = memoryLog().log) => openDiskCache({ folder, secret, clock: systemClock, log })

/** Writes both parts, as an agent does that is told something. */
async function fill(): Promise<void> {
  const changed = createTopic<void>()
  const cache = open()
  await using _ = cache.follow(kept, (_part: Part, listener) => changed.subscribe(listener))
  changed.publish()
  await vi.waitFor(() => {
    for (const part of ['knowledge', 'identities', 'cuts'])
      expect(existsSync(join(folder, `${part}.sealed`))).toBe(true)
  }, patience)
}

const plain = ({ svids, tokens }: KeptIdentities) => ({
  svids: svids.map((it) => ({
    ...it,
    chain: it.chain.map((der) => Buffer.from(der).toString('hex')),
    key: Buffer.from(it.key).toString(),
  })),
  tokens: tokens.map((it) => ({ ...it, holder: Buffer.from(it.holder ?? []).toString() })),
})

describe('what is kept', () => {
  it('comes back as it was, and lies on the disk sealed', async () => {
    await fill()
    const cache = open()
    const told = cache.knowledge()
    expect(told !== undefined && equals(AuthorityMessageSchema, told, message)).toBe(true)
    expect(plain(cache.identities())).toEqual(plain(identities))
    expect(cache.cuts()).toEqual(cuts)
    const bytes = readFileSync(join(folder, 'identities.sealed'))
    expect(bytes.includes('the key of the workload')).toBe(false)
    expect(statSync(join(folder, 'identities.sealed')).mode & 0o777).toBe(0o600)
  })

  it('is thrown away when it is damaged, cut short, or sealed by another key', async () => {
    for (const damage of [
      (it: Buffer) => it.subarray(0, it.length / 2),
      (it: Buffer) => Buffer.concat([it.subarray(0, -1), Buffer.of((it.at(-1) ?? 0) ^ 1)]),
      () => Buffer.alloc(0),
      () => randomBytes(500),
    ]) {
      await fill()
      for (const part of ['knowledge', 'identities']) {
        const path = join(folder, `${part}.sealed`)
        writeFileSync(path, damage(readFileSync(path)))
      }
      const { log, lines } = memoryLog()
      const cache = open(log)
      expect(cache.knowledge()).toBe(undefined)
      expect(cache.identities()).toEqual({ svids: [], tokens: [] })
      expect(lines.join('')).toContain('thrown away')
      expect(existsSync(join(folder, 'identities.sealed'))).toBe(false)
    }
    await fill()
    const other = sealingSecret(randomBytes(32))
    const foreign = openDiskCache({
      ...{ folder, secret: other, clock: systemClock, log: memoryLog().log },
    })
    expect(foreign.knowledge()).toBe(undefined)
  })

  it('lies there alone: what an agent that was killed had begun to write is taken away', async () => {
    writeFileSync(join(folder, '.identities.sealed.0123456789ab'), 'half of it')
    await fill()
    expect(readdirSync(folder).toSorted()).toEqual([
      'cuts.sealed',
      'identities.sealed',
      'knowledge.sealed',
    ])
  })

  it('is nothing after it was forgotten', async () => {
    await fill()
    open().clear()
    expect(open().knowledge()).toBe(undefined)
    expect(open().identities().svids).toEqual([])
  })

  it('that cannot be written is said, and written once it can', async () => {
    rmSync(folder, { recursive: true })
    const { log, lines } = memoryLog()
    const changed = createTopic<void>()
    const cache = open(log)
    await using _ = cache.follow(kept, (_part: Part, listener) => changed.subscribe(listener))
    changed.publish()
    await vi.waitFor(() => expect(cache.trouble()).toContain('ENOENT'), patience)
    expect(lines.join('')).toContain('in memory only')
    mkdirSync(folder)
    await vi.waitFor(() => expect(cache.trouble()).toBe(undefined), patience)
    expect(open().identities().svids).toHaveLength(1)
  })
})

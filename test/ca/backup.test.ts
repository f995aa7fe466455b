// Backups of a running authority, and what can be made of them.
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
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { restoreBackup } from '../../ca/backup.ts'
import { type CaConfig, loadCaConfig } from '../../ca/config.ts'
import { Records } from '../../proto/gen/castellan/records/v1/records_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { startTestCa, type TestCa } from '../support/ca.ts'
import {
  attest,
  type Connection,
  connectLocally,
  connectTls,
  denialOf,
  newKeys,
  rootsOf,
} from '../support/ca-client.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'

let folder: ReturnType<typeof testFolder>
let ca: TestCa
let local: Connection
beforeEach(async () => {
  folder = testFolder()
  ca = await startTestCa({ folder: join(folder.path) })
  local = connectLocally(ca.running.socket)
})
afterEach(async () => {
  local[Symbol.dispose]()
  await ca[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

async function backup(): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const { bytes } of local.client(Records).backup({})) pieces.push(bytes)
  return Buffer.concat(pieces)
}

async function mint(connection: Connection, name: string): Promise<string> {
  const csr = makeCsr(newKeys(), {
    attributes: [requestedNames([0x86, `spiffe://example.org/${name}`])],
  })
  const { svid } = await connection.client(SVID).mintX509SVID({ csr })
  return parseCertificate(svid?.certChain[0] ?? new Uint8Array()).serial
}

/** Another machine: the key file was brought along, the state comes from the backup. */
function elsewhere(content: Uint8Array, trustDomain = 'example.org') {
  const place = join(folder.path, `place-${readdirSync(folder.path).length}`)
  mkdirSync(place)
  const file = join(place, 'backup')
  writeFileSync(file, content)
  writeFileSync(join(place, 'ca.key'), readFileSync(join(folder.path, 'ca.key')), { mode: 0o600 })
  const yaml = readFileSync(join(folder.path, 'ca.yaml'), 'utf8')
  writeFileSync(join(place, 'ca.yaml'), yaml.replace('example.org', trustDomain))
  return { place, file, config: loadCaConfig(join(place, 'ca.yaml')) }
}

const filesIn = ({ state }: CaConfig) => (existsSync(state) ? readdirSync(state) : [])

describe('a backup', () => {
  it('of a running authority becomes the same authority elsewhere', async () => {
    const kept = await mint(local, 'kept')
    const entry = {
      spiffeId: { trustDomain: 'example.org', path: '/web' },
      parentId: { trustDomain: 'example.org', path: '/node' },
      selectors: [{ type: 'unix', value: 'uid:1' }],
    }
    await local.client(Entry).batchCreateEntry({ entries: [entry] })
    const token = await local.client(Agent).createJoinToken({ ttl: 600 })
    const roots = await rootsOf(ca.running.socket)
    using remote = connectTls(ca.running.port, roots)
    const agent = await attest(remote, token.value)
    const unused = await local.client(Agent).createJoinToken({ ttl: 600 })
    const content = await backup()
    const later = await mint(local, 'later')
    await ca[Symbol.asyncDispose]()

    const { place, file, config } = elsewhere(content)
    expect(restoreBackup(config, file)).toEqual({ entries: 1, agents: 1, authorities: 3 })
    expect(statSync(join(config.state, 'castellan.db')).mode & 0o777).toBe(0o600)
    await using restored = await startTestCa({ folder: place })
    using there = connectLocally(restored.running.socket)
    expect(await rootsOf(restored.running.socket)).toBe(roots)
    const { entries } = await there.client(Entry).listEntries({})
    expect(entries).toMatchObject([{ spiffeId: { path: '/web' } }])
    const issued = async (serial: string) =>
      (await there.client(Records).listIssued({ serial })).certificates.length
    expect([await issued(kept), await issued(later)]).toEqual([1, 0])
    await mint(there, 'new')
    // the agent goes on, a token that was not used is worth nothing
    using again = connectTls(restored.running.port, roots, agent)
    expect(await denialOf(again.client(Entry).getAuthorizedEntries({}))).toBeUndefined()
    using stranger = connectTls(restored.running.port, roots)
    expect(await denialOf(attest(stranger, unused.value))).toMatchObject({
      code: 'InvalidArgument',
    })
  })

  it('leaves nothing beside the state, and holds no key in the clear', async () => {
    const before = filesIn(ca.config)
    const content = await backup()
    expect(filesIn(ca.config)).toEqual(before)
    expect(content.subarray(0, 15).toString()).toBe('SQLite format 3')
    expect(content.includes('PRIVATE KEY')).toBe(false)
    expect(content.includes(readFileSync(join(folder.path, 'ca.key')).subarray(0, 40))).toBe(false)
  })

  it('goes on while certificates are issued', async () => {
    const [content, ...serials] = await Promise.all([
      backup(),
      ...Array.from({ length: 20 }, (_, i) => mint(local, `w${i}`)),
    ])
    expect(new Set(serials).size).toBe(20)
    const { file, config } = elsewhere(content)
    expect(restoreBackup(config, file).authorities).toBe(3)
  })
})

describe('restoring', () => {
  const refused = (config: CaConfig, file: string) => refusalOf(() => restoreBackup(config, file))

  it('does not touch an authority that is there', async () => {
    const { file } = elsewhere(await backup())
    const before = filesIn(ca.config)
    expect(refused(ca.config, file)).toMatchObject({ code: 'ERR_PRECONDITION' })
    expect(filesIn(ca.config)).toEqual(before)
  })

  it('does not touch what is left of one: a log that SQLite would play over it, keys', async () => {
    const { file, config } = elsewhere(await backup())
    mkdirSync(join(config.state, 'keys'), { recursive: true })
    for (const name of ['castellan.db-wal', 'keys/x509-00.sealed']) {
      writeFileSync(join(config.state, name), 'x')
      expect(refused(config, file)).toMatchObject({ code: 'ERR_PRECONDITION' })
      expect(readFileSync(join(config.state, name), 'utf8')).toBe('x')
      rmSync(join(config.state, name))
    }
    expect(restoreBackup(config, file).authorities).toBe(3)
  })

  it('wants the secret that opens its keys, and makes none up', async () => {
    const { place, file, config } = elsewhere(await backup())
    writeFileSync(join(place, 'ca.key'), 'x'.repeat(43), { mode: 0o600 })
    expect(refused(config, file)).toMatchObject({ code: 'ERR_SEALED' })
    expect(filesIn(config)).toEqual([])
    writeFileSync(
      join(place, 'ca.yaml'),
      readFileSync(join(place, 'ca.yaml'), 'utf8').replace('ca.key', 'none.key'),
    )
    const other = loadCaConfig(join(place, 'ca.yaml'))
    expect(refused(other, file)).toMatchObject({ code: 'ERR_SEALED' })
    expect(existsSync(join(place, 'none.key'))).toBe(false)
  })

  it('refuses another trust domain’s', async () => {
    const { file, config } = elsewhere(await backup(), 'other.org')
    expect(refused(config, file)).toEqual({
      code: 'ERR_BAD_REQUEST',
      message: `${file}: is of trust domain example.org, not of other.org`,
    })
    expect(filesIn(config)).toEqual([])
  })

  it('refuses what is no backup, cut off or damaged, and leaves nothing half-written', async () => {
    const content = await backup()
    const { file, config } = elsewhere(content)
    const cut = content.subarray(0, content.length / 2)
    const noise = Buffer.from(content)
    noise.fill(0xa5, 4096, 4096 * 6)
    for (const bad of [Buffer.of(), Buffer.from('hello'), cut, noise]) {
      writeFileSync(file, bad)
      const error = refusalOf(() => restoreBackup(config, file))
      expect(error).toMatchObject({ code: 'ERR_BAD_REQUEST' })
      expect(filesIn(config)).toEqual([])
    }
    expect(refused(config, join(folder.path, 'nothing'))?.message).toMatch(/cannot be read/)
    writeFileSync(file, content)
    expect(restoreBackup(config, file).authorities).toBe(3)
  })
})

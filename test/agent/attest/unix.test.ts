// unix: selectors, of processes that we started and of recorded ones.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Demand } from '../../../agent/attest/demand.ts'
import { createNames, numbersIn } from '../../../agent/attest/names.ts'
import { createProc } from '../../../agent/attest/proc.ts'
import { createProgramHash } from '../../../agent/attest/program-hash.ts'
import { createUnixAttestor } from '../../../agent/attest/unix.ts'
import { systemClock } from '../../../runtime/clock.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { everything, never, peer, recordedProc, statusOf, temporaryFolder } from './recorded.ts'

const proc = createProc()
const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')
const hashing = (limit: number) => createProgramHash({ proc, limit, clock: systemClock })
const kinds = (missing: readonly string[]) => missing.map((text) => text.split(' ')[0])

function running(program: string) {
  const child = spawn(program, ['60'])
  return {
    peer: peer(child.pid ?? 0, { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}

const attest = (of: ReturnType<typeof peer>, limit = 2 ** 30, demand: Demand = everything) =>
  createUnixAttestor({ proc, names: createNames(), programHash: hashing(limit) }).attest(
    of,
    demand,
    { signal: never },
  )

describe('a process of this machine', () => {
  it('has its user, groups, path and hash, and nothing else', async () => {
    await using it = running('sleep')
    const { selectors, missing } = await attest(it.peer)
    const names = createNames()
    const program = proc.link(it.peer.pid, 'exe')
    const groups = process
      .getgroups?.()
      .filter((gid) => proc.credentials(it.peer.pid).groups.includes(gid))
    const expected = [
      `unix:uid:${it.peer.uid}`,
      `unix:user:${names.user(it.peer.uid)}`,
      `unix:gid:${it.peer.gid}`,
      `unix:group:${names.group(it.peer.gid)}`,
      ...(groups ?? []).map((gid) => `unix:supplementary_gid:${gid}`),
      ...(groups ?? []).map((gid) => `unix:supplementary_group:${names.group(gid)}`),
      `unix:path:${program}`,
      `unix:sha256:${sha256(program)}`,
    ].filter((text) => !text.endsWith(':undefined'))
    expect([...selectors].sort()).toEqual(expected.sort())
    expect(missing).toEqual([])
  })

  it('keeps its path and hash when the file of its program is replaced', async () => {
    using folder = temporaryFolder()
    const program = join(folder.path, 'program')
    copyFileSync('/bin/sleep', program)
    await using it = running(program)
    const before = await attest(it.peer)
    rmSync(program)
    writeFileSync(program, 'another')
    const after = await attest(it.peer)
    expect([...after.selectors]).toEqual([...before.selectors])
    expect([...after.selectors]).toContain(`unix:path:${program}`)
  })

  it('is not hashed unless an entry asks for it', async () => {
    await using it = running('sleep')
    const demand = { ...everything, kind: (kind: string) => kind !== 'unix:sha256' }
    const { selectors, missing } = await attest(it.peer, 2 ** 30, demand)
    expect([...selectors].filter((text) => text.startsWith('unix:sha256'))).toEqual([])
    expect(missing).toEqual([])
  })

  it('has no hash when its program is over the limit, or programs are not read: absent, and said to be', async () => {
    await using it = running('sleep')
    const { selectors, missing } = await attest(it.peer, 1000)
    expect([...selectors].filter((text) => text.startsWith('unix:sha256'))).toEqual([])
    expect(missing).toEqual(['unix:sha256 (the program is over 1000 bytes (hashLimit))'])
    const attestor = createUnixAttestor({ proc, names: createNames(), programHash: undefined })
    expect((await attestor.attest(it.peer, everything, { signal: never })).missing).toEqual([
      'unix:sha256 (hashLimit is 0: programs are not read)',
    ])
  })

  it('what another uid hides is absent, and said to be', async () => {
    // a pid whose exe nobody can read: a kernel thread, or 1 for the unprivileged
    const { missing } = await attest(peer(2, { uid: 0, gid: 0 }))
    expect(kinds(missing)).toEqual(['unix:path', 'unix:sha256'])
  })
})

describe('names', () => {
  it('come from passwd and group; numbers that nobody has are absent', async () => {
    using recorded = recordedProc({ '7/status': statusOf(1001, 50, [27, 50, 4444]) })
    const { folder } = recorded
    const names = createNames({
      passwd: folder.write(
        'passwd',
        'root:x:0:0::/:/bin/sh\nweb:x:1001:50::/:\nalias:x:1001:50::/:\n',
      ),
      group: folder.write('group', 'sudo:x:27:web\nstaff:x:50:\n'),
    })
    const attestor = createUnixAttestor({ proc: recorded.proc, names, programHash: undefined })
    const demand = { ...everything, kind: () => false }
    const { selectors } = await attestor.attest(peer(7), demand, { signal: never })
    expect([...selectors].sort()).toEqual([
      'unix:gid:50',
      'unix:group:staff',
      'unix:supplementary_gid:27',
      'unix:supplementary_gid:4444',
      'unix:supplementary_gid:50',
      'unix:supplementary_group:staff',
      'unix:supplementary_group:sudo',
      'unix:uid:1001',
      'unix:user:web',
    ])
    folder.write('passwd', 'somebody:x:1001:50::/:\n')
    expect(names.user(1001)).toBe('somebody')
  })

  it('that cannot be read are absent, and said to be', async () => {
    using recorded = recordedProc({ '7/status': statusOf(1001, 50) })
    const names = createNames({ passwd: join(recorded.folder.path, 'none'), group: '/dev/null' })
    const attestor = createUnixAttestor({ proc: recorded.proc, names, programHash: undefined })
    const { missing } = await attestor.attest(
      peer(7),
      { ...everything, kind: () => false },
      { signal: never },
    )
    expect(missing).toContain('unix:user (ENOENT)')
  })

  it('lines that are not of a user are passed over', () => {
    const text =
      '+::::::\n# comment:x:1:\n:x:2:\nno number:x:y:\na b:x:3:\n-minus:x:4:\nok:x:5:9::/:\nok6:*:6\n'
    expect([...numbersIn(text)]).toEqual([
      [5, 'ok'],
      [6, 'ok6'],
    ])
  })
})

describe('a program', () => {
  function counting(clock = systemClock) {
    let reads = 0
    const facts = (path: string) => {
      if (path.startsWith('/proc/self/fd/')) reads++
      return proc.facts(path)
    }
    const hash = createProgramHash({ proc: { facts }, limit: 2 ** 20, clock })
    return { of: (path: string) => hash(path, { signal: never }), reads: () => reads / 2 }
  }

  it('is read once, and again when it was changed', async () => {
    using folder = temporaryFolder()
    const file = folder.write('program', 'first')
    const later = createFakeClock(Date.now() + 60_000)
    const hash = counting(later)
    expect(await hash.of(file)).toBe(sha256(file))
    expect(await hash.of(file)).toBe(sha256(file))
    expect(hash.reads()).toBe(1)
    folder.write('program', 'other')
    expect(await hash.of(file)).toBe(sha256(file))
    expect(hash.reads()).toBe(2)
  })

  it('that was changed a moment ago is not remembered: it could change again unseen', async () => {
    using folder = temporaryFolder()
    const file = folder.write('program', 'first')
    const hash = counting(createFakeClock(Date.now()))
    await hash.of(file)
    await hash.of(file)
    expect(hash.reads()).toBe(2)
  })

  it('that changes while it is read has no hash', async () => {
    using folder = temporaryFolder()
    const file = folder.write('program', 'first')
    let version = 0
    const facts = (path: string) => ({ ...proc.facts(path), version: String(version++) })
    const hash = createProgramHash({ proc: { facts }, limit: 2 ** 20, clock: systemClock })
    await expect(hash(file, { signal: never })).rejects.toThrow('changed while it was read')
  })

  it('that is no regular file is not read', async () => {
    await expect(hashing(100)('/dev/zero', { signal: never })).rejects.toThrow('not a regular file')
  })
})

// A disk that takes nothing: the agent goes on from memory, says so, and makes up for it once there is room.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { startX509Source } from '../../../client/x509-source.ts'
import { LocalAuthority } from '../../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { type AgentProcess, startAgentProcess } from '../../support/agent-process.ts'
import { connectLocally } from '../../support/ca-client.ts'
import { castellan } from '../../support/command.ts'

const patience = { timeout: 60_000, interval: 200 }

/** The kernel lets the process write no files any more, or again; to it both are the same as a full disk. */
function allowFiles({ pid }: AgentProcess, size: '0' | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(pid), `--fsize=${size}:`])
}

it('with a full disk the agent serves from memory, acknowledges no new roots, and says so until there is room', async () => {
  await using agent = await startAgentProcess()
  await agent.register('/before')
  await using source = startX509Source({ kind: 'unix', path: agent.socket })
  await source.ready(AbortSignal.timeout(60_000))
  await vi.waitFor(async () => expect((await agent.status()).diskTrouble).toBe(''), patience)

  allowFiles(agent, '0')
  await agent.register('/meanwhile')
  await vi.waitFor(() => expect(source.current()?.svids).toHaveLength(2), patience)
  await agent.says('what this agent keeps is in memory only')
  expect(await agent.status()).toMatchObject({
    connected: true,
    diskTrouble: expect.stringContaining('EFBIG'),
  })

  using local = connectLocally(agent.ca.running.socket)
  const operator = local.client(LocalAuthority)
  const { preparedAuthority } = await operator.prepareX509Authority({})
  const activate = () =>
    operator.activateX509Authority({ authorityId: preparedAuthority?.authorityId ?? '' })
  await vi.waitFor(() => expect(source.bundles()[0]?.authorities).toHaveLength(2), patience)
  await agent.says("this agent's own SVID is in memory only")
  await expect(activate()).rejects.toThrow('the bundle in force is not acknowledged by')
  expect(await agent.status()).toMatchObject({ connected: true, trouble: '' })

  allowFiles(agent, 'unlimited')
  // any message of the authority has the agent try again
  await agent.register('/after')
  await vi.waitFor(activate, patience)
  await agent.says("this agent's own SVID is on the disk again")
  await agent.says('what this agent keeps is on the disk again')
  await vi.waitFor(async () => expect((await agent.status()).diskTrouble).toBe(''), patience)
  expect(source.current()?.svids).toHaveLength(3)
}, 120_000)

interface SmallDisk extends Disposable {
  readonly path: string
  /** Leaves no room on it. */
  fill(): void
  /** Makes room again. */
  clear(): void
}

/** A file system of 256 KiB; undefined where this process may not mount one. */
function mountSmallDisk(): SmallDisk | undefined {
  const path = mkdtempSync(join(tmpdir(), 'castellan-disk-'))
  const filler = join(path, 'filler')
  try {
    const options = ['-t', 'tmpfs', '-o', 'size=256k,mode=700', 'castellan-test', path]
    execFileSync('mount', options, { stdio: 'ignore' })
  } catch {
    rmSync(path, { recursive: true })
    return undefined
  }
  return {
    path,
    fill: () =>
      expect(() => writeFileSync(filler, Buffer.alloc(1_000_000))).toThrow(
        expect.objectContaining({ code: 'ENOSPC' }),
      ),
    clear: () => rmSync(filler),
    [Symbol.dispose]() {
      execFileSync('umount', ['--lazy', path])
      rmSync(path, { recursive: true })
    },
  }
}

it('a state folder on a disk without room stops nothing: SVIDs are renewed in memory, and written once there is room', async (test) => {
  using disk = mountSmallDisk()
  if (disk === undefined) return test.skip('this process may not mount a file system')
  await using agent = await startAgentProcess({
    agent: { state: disk.path },
    ca: 'svidLifetime: 24s\n',
  })
  await agent.register('/web')
  await using source = startX509Source({ kind: 'unix', path: agent.socket })
  await source.ready(AbortSignal.timeout(60_000))
  const kept = ['identity', 'identities', 'knowledge'].map((it) => join(disk.path, `${it}.sealed`))
  // each time it is another file that takes the name
  const inodes = () => kept.map((path) => statSync(path).ino)
  await vi.waitFor(inodes, patience)
  disk.fill()
  const serialOf = () => source.current()?.svids[0].serial
  const before = { own: (await agent.status()).agentSerial, web: serialOf() }
  await vi.waitFor(async () => {
    const { connected, agentSerial, diskTrouble } = await agent.status()
    expect([connected, diskTrouble]).toEqual([true, expect.stringContaining('ENOSPC')])
    expect(agentSerial).not.toBe(before.own)
    expect(serialOf()).not.toBe(before.web)
  }, patience)
  await agent.says('what this agent keeps is in memory only')
  await agent.says("this agent's own SVID is in memory only")
  const socket = join(agent.ca.folder, 'admin/agent-admin.sock')
  const { code, stdout } = await castellan(['agent', 'status', '--admin-socket', socket])
  expect([code, stdout]).toEqual([0, expect.stringMatching(/in memory only: .*ENOSPC/)])

  const full = inodes()
  disk.clear()
  await agent.says("this agent's own SVID is on the disk again")
  await agent.says('what this agent keeps is on the disk again')
  await vi.waitFor(async () => expect((await agent.status()).diskTrouble).toBe(''), patience)
  const now = inodes()
  expect(now.slice(0, 2).filter((inode) => full.includes(inode))).toEqual([])
}, 240_000)

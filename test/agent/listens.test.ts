// Where an agent can be reached: at its two sockets, and at no address.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { startAgentProcess } from '../support/agent-process.ts'

const listening = '0A'

/** The inodes of the sockets that a process has open. */
function socketsOf(pid: number): ReadonlySet<string> {
  const folder = `/proc/${pid}/fd`
  const links = readdirSync(folder).map((fd) => readlinkSync(join(folder, fd)))
  return new Set(links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []))
}

/** The fields of each line of a table of /proc/net that belongs to the process. */
function socketLines(pid: number, table: string, inodeAt: number): string[][] {
  const own = socketsOf(pid)
  const lines = readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n')
  return lines.map((line) => line.trim().split(/\s+/)).filter((it) => own.has(it[inodeAt] ?? ''))
}

it('WE-2 the Workload API is on a unix socket alone: an agent listens at no TCP address', async () => {
  await using agent = await startAgentProcess()
  const tcp = ['tcp', 'tcp6'].flatMap((table) => socketLines(agent.pid, table, 9))
  // the one to its authority is there, so the tables were read right
  expect(tcp).not.toHaveLength(0)
  expect(tcp.filter(([, , , state]) => state === listening)).toEqual([])
  const paths = socketLines(agent.pid, 'unix', 6).map((it) => it[7])
  expect(paths).toEqual(expect.arrayContaining([agent.socket]))
}, 120_000)

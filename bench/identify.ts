// bench identify: the CPU that it takes to know who is at the other end of a local connection:
// SO_PEERCRED, a pidfd, the check that it is that very process, and its release.
import { once } from 'node:events'
import { readlinkSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createIdentify } from '../agent/attest/peer-credentials.ts'
import { testFolder } from '../test/support/folder.ts'
import { type Bench, type BenchResult, interleave, rounded } from './measure.ts'

const goal = 30
const connections = 100
const repetitions = 50
const rounds = 7

/** Connections to ourselves over a unix socket, as the server sees them. */
async function openConnections(path: string) {
  const accepted: Socket[] = []
  const server = createServer((socket) => accepted.push(socket)).listen(path)
  await once(server, 'listening')
  const clients: Socket[] = []
  while (clients.length < connections) {
    const client = connect(path)
    clients.push(client)
    await once(client, 'connect')
  }
  while (accepted.length < connections) await once(server, 'connection')
  return {
    accepted,
    [Symbol.dispose]() {
      for (const socket of [...clients, ...accepted]) socket.destroy()
      server.close()
    },
  }
}

/** CPU microseconds of one call, user and system. */
function cpuOf(calls: number, work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / calls
}

async function run(): Promise<BenchResult> {
  using folder = testFolder()
  using open = await openConnections(join(folder.path, 'bench.sock'))
  const identify = createIdentify()
  const calls = connections * repetitions
  const each = (work: (socket: Socket) => void) => async () =>
    cpuOf(calls, () => {
      for (let i = 0; i < repetitions; i++) for (const socket of open.accepted) work(socket)
    })
  const [whole = Number.NaN, limit = Number.NaN] = await interleave(
    [
      { name: 'identify', run: each((socket) => identify(socket)[Symbol.dispose]()) },
      // the least that any attestation by path does: one system call into /proc
      { name: 'readlink', run: each(() => readlinkSync(`/proc/${process.pid}/exe`)) },
    ],
    rounds,
  )
  return {
    rows: [
      { what: 'identify and release', 'CPU µs per connection': rounded(whole) },
      { what: 'readlink /proc/PID/exe', 'CPU µs per connection': rounded(limit) },
    ],
    figure: rounded(whole),
    unit: 'µs CPU per connection',
    goal,
    peer: { name: 'readlink of /proc/PID/exe', figure: rounded(limit) },
    ok: whole <= goal,
  }
}

export const identifyBench: Bench = { name: 'identify', run }

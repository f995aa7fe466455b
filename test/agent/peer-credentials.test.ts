// Who is at the other end of a unix socket: the kernel's answer, against processes that we started.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { errnos, type Libc, loadLibc } from '../../agent/attest/libc.ts'
import { createIdentify, createProcesses } from '../../agent/attest/peer-credentials.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-peer-'))
afterAll(() => rmSync(folder, { recursive: true }))

async function connected(script: string) {
  const path = join(folder, `${Math.floor(performance.now() * 1000)}.sock`)
  const server = createServer().listen(path)
  await once(server, 'listening')
  const child = spawn(process.execPath, ['-e', script, path], { stdio: 'inherit' })
  const [socket]: Socket[] = await once(server, 'connection')
  if (socket === undefined) throw new Error('no connection')
  const close = () => {
    socket.destroy()
    server.close()
  }
  return { child, socket, close }
}

async function killed(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

const stay = "require('net').connect(process.argv[1]).on('close', () => process.exit())"

it('names pid, uid and gid of the process that connected, and notices its end', async () => {
  const { child, socket, close } = await connected(stay)
  using peer = createIdentify()(socket)
  expect({ pid: peer.pid, uid: peer.uid, gid: peer.gid }).toEqual({
    pid: child.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  })
  expect(peer.isAlive()).toBe(true)
  await killed(child)
  expect(peer.isAlive()).toBe(false)
  close()
})

it('a peer whose process has gone, its socket kept by a child, is refused', async () => {
  const inherit = `const s = require('net').connect(process.argv[1], () => {
    require('child_process').spawn('cat', { stdio: [s, 'ignore', 'ignore'], detached: true }).unref()
    process.kill(process.pid, 'SIGKILL')
  })`
  const { child, socket, close } = await connected(inherit)
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  expect(() => createIdentify()(socket)).toThrow(/has ended/)
  close()
})

it('one system call finds those of many that have ended', async () => {
  const [stays, ends] = await Promise.all([connected(stay), connected(stay)])
  const processes = createProcesses()
  using first = processes.identify(stays.socket)
  using second = processes.identify(ends.socket)
  expect(processes.ended([first, second])).toEqual([])
  await killed(ends.child)
  expect(processes.ended([first, second])).toEqual([second])
  second[Symbol.dispose]()
  expect(processes.ended([first, second])).toEqual([])
  await killed(stays.child)
  stays.close()
  ends.close()
})

it('a process is opened by its pid, with the users that it has', async () => {
  const child = spawn('sleep', ['60'])
  const processes = createProcesses()
  using opened = processes.open(child.pid ?? 0)
  expect({ pid: opened.pid, uid: opened.uid, gid: opened.gid }).toEqual({
    pid: child.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  })
  await killed(child)
  expect(opened.isAlive()).toBe(false)
  expect(() => processes.open(child.pid ?? 0)).toThrow(/no process/)
})

/** The kernel, but for what it says about SO_PEERPIDFD. */
function kernelThatAnswers(errno: number): Libc & { readonly opened: number[] } {
  const libc = loadLibc()
  const opened: number[] = []
  let isFailed = false
  return {
    ...libc,
    opened,
    getsockopt(fd, level, name, value, length) {
      isFailed = name === 77
      return isFailed ? -1 : libc.getsockopt(fd, level, name, value, length)
    },
    errno: () => (isFailed ? errno : libc.errno()),
    syscall(number, pid, flags) {
      opened.push(pid)
      return libc.syscall(number, pid, flags)
    },
  }
}

it('only a kernel that has no SO_PEERPIDFD is asked by pid: a pid may be somebody else’s by now', async () => {
  const { child, socket, close } = await connected(stay)
  const old = kernelThatAnswers(errnos.unknownOption)
  createIdentify(old)(socket)[Symbol.dispose]()
  expect(old.opened).toEqual([child.pid])
  const current = kernelThatAnswers(errnos.noProcess)
  expect(() => createIdentify(current)(socket)).toThrow(/has ended/)
  expect(current.opened).toEqual([])
  await killed(child)
  close()
})

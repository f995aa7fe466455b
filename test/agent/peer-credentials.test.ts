// Who is at the other end of a unix socket: the kernel's answer, against processes that we started.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { createIdentify } from '../../agent/attest/peer-credentials.ts'
import { createUnixAttestor } from '../../agent/attest/unix.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-peer-'))
afterAll(() => rmSync(folder, { recursive: true }))

async function connected(script: string) {
  const path = join(folder, `${Math.floor(performance.now() * 1000)}.sock`)
  const server = createServer().listen(path)
  await once(server, 'listening')
  const child = spawn(process.execPath, ['-e', script, path], { stdio: 'inherit' })
  const [socket]: Socket[] = await once(server, 'connection')
  if (socket === undefined) throw new Error('no connection')
  return { child, socket, close: () => server.close() }
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
  const { selectors, missing } = await createUnixAttestor().attest(peer, { withHash: false })
  expect([...selectors]).toContain(`unix:path:${process.execPath}`)
  expect(missing).toEqual([])
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
  expect(peer.isAlive()).toBe(false)
  await expect(createUnixAttestor().attest(peer, { withHash: false })).rejects.toMatchObject({
    code: 'ERR_DENIED',
  })
  socket.destroy()
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
  socket.destroy()
  close()
})

it('what another uid hides is absent, and said to be', async () => {
  // a pid whose exe nobody can read: a kernel thread, or 1 for the unprivileged
  const peer = { pid: 2, uid: 0, gid: 0, isAlive: () => true, [Symbol.dispose]: () => {} }
  const { selectors, missing } = await createUnixAttestor().attest(peer, { withHash: true })
  expect([...selectors].sort()).toEqual(['unix:gid:0', 'unix:uid:0'])
  expect(missing.map((text) => text.split(' ')[0])).toEqual(['unix:path', 'unix:sha256'])
})

// castellan dev, as a person uses it: look, call, edit, break, kill, stop.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFailed, onTestFinished, vi } from 'vitest'

const patience = 60_000
const launcher = join(import.meta.dirname, '../../bin/castellan')
const runtime = mkdtempSync(join(tmpdir(), 'castellan-xdg-'))
const env = { ...process.env, XDG_RUNTIME_DIR: runtime }

function castellan(...args: string[]): Promise<{ code: number; output: string }> {
  const { promise, resolve } = Promise.withResolvers<{ code: number; output: string }>()
  execFile(launcher, args, { env }, (error, stdout, stderr) =>
    resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr }),
  )
  return promise
}

/** The demonstration, and a way to wait for what it says next. */
function startDev() {
  const child = spawn(launcher, ['dev'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  onTestFinished(async () => {
    if (child.exitCode === null) {
      child.kill()
      await once(child, 'exit')
    }
    rmSync(runtime, { recursive: true, force: true })
  })
  let said = ''
  let awaited = ''
  onTestFailed(() => console.error(`waiting for ${awaited} in: ${said.slice(-2000)}`))
  let wake = () => {}
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (part: string) => {
      said += part
      wake()
    })
  child.once('exit', () => wake())
  return {
    child,
    /** Waits until it has said all of `patterns` since the last time, in whatever order. */
    async says(...patterns: readonly RegExp[]): Promise<RegExpExecArray> {
      awaited = patterns.join(' and ')
      for (;;) {
        const found = patterns.map((pattern) => pattern.exec(said))
        const [first] = found
        if (first && found.every((it) => it !== null)) {
          said = said.slice(Math.max(...found.map((it) => it.index + it[0].length)))
          return first
        }
        if (child.exitCode !== null) throw new Error('it ended')
        const next = Promise.withResolvers<void>()
        wake = next.resolve
        await next.promise
      }
    },
  }
}

it('shows identities and rotations, answers calls, follows edits, and survives its authority', async () => {
  const { child, says } = startDev()
  const [, file = ''] = await says(/^edit (\S+)$/m)
  await says(/sa\/frontend +[0-9a-f]{8} +\d+ s/)
  await says(/authority connected/)

  // the sidecars deny everything until they have their policies
  const allowed = await vi.waitFor(async () => {
    const answer = await castellan('call', 'frontend', 'payments', 'GET', '/balance')
    expect(answer.code).toBe(0)
    return answer
  }, patience)
  expect(allowed.output).toContain('200  from spiffe://castellan.dev/ns/payments/sa/payments')
  const denied = await castellan('call', 'frontend', 'payments', 'POST', '/admin')
  expect(denied.code).toBe(1)
  expect(denied.output).toMatch(/^403 /)
  expect(denied.output).toContain('would allow it: ')
  await says(/denied:\n.*POST \/admin/)

  const before = readFileSync(file, 'utf8')
  writeFileSync(file, `${before}colour: red\n`)
  await says(/policy refused, the one before it stays in force/)
  await says(/payments\.yaml:\d+ colour/)
  writeFileSync(file, before.replaceAll('GET', 'PUT'))
  await says(/policies version 2/)
  // the agent has it; the sidecar a moment later
  await vi.waitFor(async () => {
    expect((await castellan('call', 'frontend', 'payments', 'GET', '/balance')).code).toBe(1)
  }, patience)
  writeFileSync(file, before)
  await says(/policies version 3/)

  await killed('ca run')
  await says(
    /authority has ended \(SIGKILL\); start it again: bin\/castellan ca run/,
    /authority AWAY/,
  )
  await killed('agent run')
  await says(
    /agent has ended \(SIGKILL\); start it again: bin\/castellan agent run/,
    /agent AWAY; sidecars go on/,
  )
  const without = await castellan('call', 'frontend', 'payments', 'GET', '/balance')
  expect(without.output).toMatch(/^200 /)

  child.kill()
  await once(child, 'exit')
  expect(child.exitCode).toBe(0)
  expect(existsSync(join(file, '../..'))).toBe(false)
  expect(existsSync(join(runtime, 'castellan-dev.json'))).toBe(false)

  async function killed(command: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<string>()
    execFile('ps', ['-o', 'pid=,args=', '--ppid', String(child.pid)], (_, out) => resolve(out))
    const line = (await promise).split('\n').find((it) => it.includes(command))
    process.kill(Number.parseInt(line ?? '', 10), 'SIGKILL')
  }
}, 240_000)

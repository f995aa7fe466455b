// dist/castellan.js, as `npm run build` makes it: an authority, an agent and a workload of one file.
import { execFile, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildProgram } from '../../build/program.ts'
import { freePort } from '../support/ports.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-built-'))
const program = join(folder, 'dist/castellan.js')
const running = new AsyncDisposableStack()

beforeAll(async () => {
  mkdirSync(join(folder, 'dist'))
  await buildProgram(join(folder, 'dist'))
  // what is native stays a package
  symlinkSync(join(import.meta.dirname, '../../node_modules'), join(folder, 'node_modules'))
})
afterAll(async () => {
  await running.disposeAsync()
  rmSync(folder, { recursive: true, force: true })
})

/** Rejects unless the program ends with 0. */
function castellan(...args: string[]): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const env = { ...process.env, XDG_RUNTIME_DIR: folder }
  execFile(process.execPath, [program, ...args], { cwd: folder, env }, (error, stdout) =>
    error === null ? resolve(stdout) : reject(error),
  )
  return promise
}

/** Resolves once it has logged `ready`. */
async function start(...args: string[]): Promise<void> {
  const child = spawn(process.execPath, [program, ...args], { cwd: folder })
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  running.defer(async () => {
    child.kill()
    expect(await ended).toBe(0)
  })
  const ready = Promise.withResolvers<void>()
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (part: string) => {
      said += part
      if (said.includes('"msg":"ready"')) ready.resolve()
    })
  void ended.then((code) =>
    ready.reject(new Error(`${args.join(' ')} ended with ${code}: ${said}`)),
  )
  await ready.promise
}

describe('the built program', () => {
  it('says what it can do', async () => {
    expect(await castellan('--help')).toContain('Usage: castellan')
    expect(await castellan('--version')).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  it('is an authority and an agent, and gives a process its identity', async () => {
    const port = await freePort()
    writeFileSync(
      join(folder, 'ca.yaml'),
      `trustDomain: example.org
state: ca
unlock: { keyFile: ca.key }
listen: 127.0.0.1:${port}
operations: 127.0.0.1:0
`,
    )
    const said = await castellan('ca', 'init')
    const [pin] = /sha256:[0-9a-f]{64}/.exec(said) ?? []
    await start('ca', 'run')
    const socket = ['--socket', 'ca/ca.sock']
    const token = JSON.parse(await castellan('token', 'create', '-o', 'json', ...socket))
    writeFileSync(join(folder, 'token'), token.token)
    writeFileSync(
      join(folder, 'agent.yaml'),
      `trustDomain: example.org
authority: { address: 127.0.0.1:${port}, pin: '${pin}' }
joinTokenFile: token
state: agent
socket: run/agent.sock
adminSocket: admin/agent-admin.sock
`,
    )
    await start('agent', 'run')
    const ids = ['--spiffe-id', 'spiffe://example.org/web', '--parent-id', token.agentId]
    const selector = `unix:uid:${process.getuid?.()}`
    await castellan('entry', 'create', ...ids, '--selector', selector, ...socket)
    const at = ['--socket', 'run/agent.sock', '--timeout', '60s']
    expect(await castellan('svid', 'fetch', 'x509', ...at)).toContain('spiffe://example.org/web')
    const jwt = await castellan('svid', 'fetch', 'jwt', '--audience', 'db', ...at)
    expect(jwt).toMatch(/eyJ[\w-]+\.[\w-]+\.[\w-]+/)
  })
})

// The command line as scripts use it: the launcher, exit codes, JSON, messages with the next step.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { startCastellan } from '../support/command.ts'

const folder = mkdtempSync(join(tmpdir(), 'castellan-cli-'))
afterAll(() => rmSync(folder, { recursive: true }))

// no demonstration of the person who runs the tests is spoken to
const castellan = (...args: string[]) =>
  startCastellan(args, { cwd: folder, env: { XDG_RUNTIME_DIR: folder } })

describe('castellan', () => {
  it('runs from any folder and lists its nouns', async () => {
    const { code, stdout } = await castellan('--help')
    expect(code).toBe(0)
    for (const noun of [
      'dev',
      'ca',
      'agent',
      'entry',
      'token',
      'authority',
      'bundle',
      'policy',
      'proxy',
      'config',
    ])
      expect(stdout).toContain(`  ${noun}`)
  })

  it('wrong usage is 2, with a hint', async () => {
    const unknown = await castellan('entry', 'destroy')
    expect(unknown.code).toBe(2)
    expect(unknown.stderr).toContain('--help')
    const socket = await castellan('entry', 'list')
    expect(socket.code).toBe(2)
    expect(socket.stderr).toContain('--socket')
  })

  it('nobody there is 3, with the next step', async () => {
    const { code, stderr } = await castellan('entry', 'list', '--socket', join(folder, 'none.sock'))
    expect(code).toBe(3)
    expect(stderr).toContain('ENOENT')
  })

  it('bad configuration is 2 and names file, line and field', async () => {
    const file = join(folder, 'ca.yaml')
    writeFileSync(
      file,
      'trustDomain: example.org\nstate: x\nunlock: { keyFile: k }\nlisten: 127.0.0.1:1\nlistne: 1\n',
    )
    const { code, stderr } = await castellan('config', 'validate', 'ca', file)
    expect(code).toBe(2)
    expect(stderr).toContain(`${file}:5 listne: unknown key`)
  })

  it('ca init, then valid JSON on standard output and nothing else', async () => {
    const file = join(folder, 'good.yaml')
    writeFileSync(
      file,
      'trustDomain: example.org\nstate: state\nunlock: { keyFile: state/ca.key }\n',
    )
    const early = await castellan('ca', 'run', '-c', file)
    expect(early.code).toBe(2)
    expect(early.stderr).toContain('castellan ca init')
    const made = await castellan('ca', 'init', '-c', file, '-o', 'json')
    expect(made.code).toBe(0)
    expect(JSON.parse(made.stdout)).toMatchObject({ created: true, trustDomain: 'example.org' })
    const again = await castellan('ca', 'init', '-c', file, '-o', 'json')
    expect(JSON.parse(again.stdout)).toMatchObject({
      created: false,
      fingerprint: JSON.parse(made.stdout).fingerprint,
    })
  })
}, 120_000)

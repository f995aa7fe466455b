// What may be said of a set of files, and where an error is.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { createAccounts } from '../../../agent/files/accounts.ts'
import { agentFileSets, ownFileSets } from '../../../agent/files/config.ts'
import { parseConfig, pathRelativeTo } from '../../../runtime/config.ts'
import { testFolder } from '../../support/folder.ts'
import { refusalOf } from '../../support/refusal.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const passwd = join(folder.path, 'passwd')
const group = join(folder.path, 'group')
writeFileSync(passwd, 'root:x:0:0::/:/bin/sh\nweb:x:1001:1002::/:/bin/sh\nweb:x:7:7::/:/bin/sh\n')
writeFileSync(group, 'root:x:0:\ntls:x:1002:web\nothers:x:1003:\n')

const accountsOf = (uid: number, groups: readonly number[], mayGive = uid === 0) =>
  createAccounts({ passwd, group, self: () => ({ uid, groups, mayGive }) })
const asRoot = accountsOf(0, [0])

const file = '/etc/castellan/files.yaml'
const read = (text: string, accounts = asRoot) =>
  parseConfig(text, file, ownFileSets(pathRelativeTo(file), accounts))
const set = (...lines: string[]) =>
  `- folder: tls\n  files: [{ name: c, holds: chain }]\n${lines.map((it) => `  ${it}\n`).join('')}`
const problem = (text: string, accounts = asRoot) => refusalOf(() => read(text, accounts))?.message
const withFile = (file: string) => `- folder: tls\n  files:\n  - ${file}\n`

describe('a set of files', () => {
  it('is read with paths that are relative to the file, and accounts as numbers', () => {
    const [one] = read(`
- id: spiffe://example.org/web
  folder: tls
  owner: web
  group: tls
  mode: "0640"
  files:
  - { name: tls.key, holds: key, mode: "0600" }
  - { name: store.p12, holds: pkcs12, passwordFile: ../password }
  notify: { command: [/usr/sbin/nginx, -s, reload], timeout: 30s }
`)
    expect(one).toEqual({
      id: 'spiffe://example.org/web',
      ...{ folder: '/etc/castellan/tls', owner: 1001, group: 1002, mode: 0o640 },
      files: [
        { name: 'tls.key', holds: 'key', mode: 0o600 },
        { name: 'store.p12', holds: 'pkcs12', passwordFile: '/etc/password', alias: 'svid' },
      ],
      notify: { command: ['/usr/sbin/nginx', '-s', 'reload'], timeout: 30_000 },
    })
    expect(read(set('owner: 4711'))[0]?.owner).toBe(4711)
  })

  it.each([
    [set('color: red'), '3 [0].color: unknown key'],
    ['- files: [{ name: c, holds: chain }]', '1 [0].folder: Invalid input'],
    ['- { folder: tls, files: [] }', '1 [0].files: Too small'],
    ['[]', '1: Too small'],
    [
      withFile('{ name: c, holds: chains }'),
      "3 [0].files[0].holds: Invalid discriminator value. Expected 'chain'",
    ],
    [withFile('{ name: ../c, holds: chain }'), '3 [0].files[0].name: a name is letters'],
    [withFile('{ name: .c, holds: chain }'), '3 [0].files[0].name: a name is letters'],
    [withFile('{ name: c, holds: chain, audience: [a] }'), '3 [0].files[0].audience: unknown key'],
    [withFile('{ name: c, holds: jwt }'), '3 [0].files[0].audience: Invalid input'],
    [withFile('{ name: c, holds: jwt, audience: [] }'), '3 [0].files[0].audience: Too small'],
    [withFile('{ name: c, holds: pkcs12 }'), '3 [0].files[0].passwordFile: Invalid input'],
    [withFile('{ name: c, holds: bundle, trustDomain: A }'), '3 [0].files[0].trustDomain: '],
    [withFile('{ name: c, holds: chain }\n  - { name: c, holds: key }'), 'c stands twice'],
    [withFile('{ name: c, holds: chain, mode: 0640 }'), 'a mode is octal, in quotes: "0640"'],
    [withFile('{ name: c, holds: chain, mode: "0755" }'), 'and nobody to execute'],
    [withFile('{ name: c, holds: chain, mode: "0244" }'), 'the owner has to be able to read'],
    [
      withFile('{ name: c, holds: key, mode: "0644" }'),
      '[0].files[0].mode: it holds a secret that everybody could read (key)',
    ],
    [
      `${withFile('{ name: c, holds: jwt, audience: [a] }')}  mode: "0604"\n`,
      'everybody could read (jwt)',
    ],
    [set('id: web'), '3 [0].id: '],
    [set('owner: nobody-here'), '3 [0].owner: there is no user "nobody-here" on this machine'],
    [set('group: web'), '3 [0].group: there is no group "web" on this machine'],
    [set('notify: {}'), '3 [0].notify: give either pidFile and signal, or command'],
    [set('notify: { pidFile: p }'), 'pidFile and signal belong together'],
    [set('notify: { pidFile: p, signal: KILL }'), '[0].notify.signal: Invalid option'],
    [set('notify: { command: [nginx] }'), 'command begins with the absolute path of a program'],
    [set('notify: { pidFile: p, signal: HUP, timeout: 1s }'), 'timeout belongs to command'],
    [set() + set(), '3 [1].folder: another set has this folder already'],
  ])('%s is refused', (text, why) => {
    expect(problem(text)).toContain(`${file}:`)
    expect(problem(text)).toContain(why)
  })

  it('is for others only where this process can give files away', () => {
    const web = accountsOf(1001, [1001, 1002])
    expect(read(set('owner: web', 'group: tls'), web)).toHaveLength(1)
    expect(problem(set('owner: root'), web)).toBe(
      `${file}:3 [0].owner: only root can give files to another user, and this process runs as 1001`,
    )
    expect(problem(set('group: others'), web)).toBe(
      `${file}:3 [0].group: this process (user 1001) is not in group 1003; only root can give files to any group`,
    )
    const capable = accountsOf(1001, [1001], true)
    expect(read(set('owner: root', 'group: others'), capable)).toHaveLength(1)
  })

  it('that the agent writes has to name the identity', () => {
    const agents = (text: string) =>
      parseConfig(text, file, agentFileSets(pathRelativeTo(file), asRoot))
    expect(refusalOf(() => agents(set()))?.message).toContain('[0].id: ')
    expect(agents(set('id: spiffe://example.org/web'))[0]?.id).toBe('spiffe://example.org/web')
  })
})

it('this process may give files away when it is root', () => {
  const accounts = createAccounts()
  const isRoot = process.geteuid?.() === 0
  expect(accounts.whyNot(process.geteuid?.(), process.getegid?.())).toBe(undefined)
  if (!isRoot) expect(accounts.whyNot(0, undefined)).toContain('only root')
  expect(accounts.user('root')).toBe(0)
})

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestCa, type TestCa } from '../support/ca.ts'
import { castellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'

const from = (namespace: string) => `{ from: [{ source: { namespaces: [${namespace}] } }] }`
const policy = (name: string, action = 'ALLOW') => `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec: { action: ${action}, rules: [${from('a')}, ${from('b')}] }
`
const others = `apiVersion: castellan.dev/v1
kind: AuthorizationPolicy
metadata: { name: watched, namespace: shop }
spec: { mode: shadow, rules: [{}] }
---
apiVersion: castellan.dev/v1
kind: RateLimit
metadata: { name: slow, namespace: shop }
spec: { limits: [{ requests: 1, per: 1s }] }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: mtls, namespace: shop }
spec: { mtls: { mode: STRICT } }
`

const cases = `cases:
  - { name: nobody, request: { destination: example.org/ns/shop/sa/web, http: GET / }, expect: deny }
`

const folder = testFolder()
const watched = testFolder()
afterAll(() => {
  folder[Symbol.dispose]()
  watched[Symbol.dispose]()
})
const put = (at: { readonly path: string }, name: string, text: string) => {
  const file = join(at.path, name)
  writeFileSync(file, text)
  return file
}

let ca: TestCa
beforeAll(async () => {
  ca = await startTestCa()
})
afterAll(() => ca[Symbol.asyncDispose]())
const run = (...args: string[]) => castellan(['policy', ...args, '--socket', ca.running.socket])

describe('castellan policy', () => {
  it('applies files and folders, and lists each document with its place', async () => {
    expect((await run('list')).stdout).toBe('version 0 has no policies: everything is denied\n')
    expect((await run('versions')).stdout).toBe('no policies were applied yet\n')
    const a = put(folder, 'a.yaml', `${policy('one')}---\n${policy('two', 'DENY')}`)
    const b = put(folder, 'b.yml', others)
    put(folder, 'c.cases.yaml', cases)
    const applied = await run('apply', folder.path, '--message', 'all of it')
    expect(applied).toEqual({ code: 0, stdout: 'version 1 is in force\n', stderr: '' })
    const { stdout } = await run('list')
    const lines = stdout.trimEnd().split('\n')
    expect(lines.map((line) => line.split(/ {2,}/))).toEqual([
      ['KIND', 'NAMESPACE/NAME', 'ACTION', 'RULES', 'FILE:LINE', 'VERSION'],
      ['AuthorizationPolicy', 'shop/one', 'ALLOW', '2', `${a}:2`, '1'],
      ['AuthorizationPolicy', 'shop/two', 'DENY', '2', `${a}:7`, '1'],
      ['AuthorizationPolicy', 'shop/watched', 'ALLOW (shadow)', '1', `${b}:2`, '1'],
      ['RateLimit', 'shop/slow', '-', '1', `${b}:7`, '1'],
      ['PeerAuthentication', 'shop/mtls', '-', '0', `${b}:12`, '1'],
    ])
    const json = JSON.parse((await run('list', '-o', 'json')).stdout)
    expect(json).toMatchObject({
      version: 1,
      documents: [
        { kind: 'AuthorizationPolicy', namespace: 'shop', name: 'one', line: 2 },
        {},
        {},
        {},
        {},
      ],
      files: [{ name: a }, { name: b }, { name: join(folder.path, 'c.cases.yaml') }],
    })
  })

  it('shows versions, rolls back, and deletes one document', async () => {
    const deleted = await run('delete', 'shop/slow', '-o', 'json')
    expect(JSON.parse(deleted.stdout)).toEqual({ version: 2, deleted: 'shop/slow' })
    expect((await run('list')).stdout).not.toContain('slow')
    const back = await run('rollback', '1', '--message', 'a mistake')
    expect(back.stdout).toBe('version 3 is in force, with the files of 1\n')
    expect((await run('list')).stdout).toContain('slow')
    const { stdout } = await run('versions')
    expect(stdout).toMatch(
      /^VERSION +APPLIED +BY +MESSAGE\n3 \* .+Z +local +a mistake\n2 .+RateLimit shop\/slow deleted\n1 .+all of it\n$/,
    )
    const json = JSON.parse((await run('versions', '-o', 'json')).stdout)
    expect(json).toMatchObject([{ version: 3, inForce: true }, { inForce: false }, {}])
  })

  it.each([
    [['rollback', 'x'], 2, '"x" is no version; castellan policy versions shows them'],
    [['rollback', '77'], 1, 'policy version 77 is not kept; 1 to 3 are'],
    [['delete', 'shop'], 2, '"shop": write NAMESPACE/NAME, as castellan policy list shows it'],
    [['delete', 'shop/none'], 1, 'there is no policy shop/none'],
    [['apply', '/nowhere'], 2, 'cannot read /nowhere (ENOENT)'],
  ])('refuses %j', async (args, code, problem) => {
    const refused = await run(...args)
    expect(refused.code).toBe(code)
    expect(refused.stderr).toContain(problem)
  })

  it('deletes nothing that stands in the folder that is watched', async () => {
    const file = put(watched, 'a.yaml', `\n${policy('one')}`)
    await using other = await startTestCa({ config: `policies: ${watched.path}\n` })
    const at = (...args: string[]) =>
      castellan(['policy', ...args, '--socket', other.running.socket])
    await expect
      .poll(async () => (await at('list')).stdout, { timeout: 20_000 })
      .toContain('shop/one')
    const refused = await at('delete', 'shop/one')
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain(
      `AuthorizationPolicy shop/one stands in ${file}:3, in the folder that this authority watches: it would come back; delete it there`,
    )
  })
})

// `castellan svid write` as spiffe-helper's users call it: a real authority, a real agent, the real program.

import { X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { Entry } from '../../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { castellan } from '../../support/command.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'
import { freePort } from '../../support/ports.ts'
import { runCastellan } from '../../support/running-command.ts'

const uid = process.getuid?.()
const id = `spiffe://${trustDomain}/web`
const at = (...names: string[]) => join(node.folder, ...names)
const read = (...names: string[]) => readFileSync(at(...names), 'utf8')
let node: TestNode
let entryId = ''

function configOf(name: string, more: object): string {
  writeFileSync(at(name), stringify({ workloadApi: `unix://${node.agent.socket}`, ...more }))
  return at(name)
}

const tls = [
  { name: 'tls.crt', holds: 'chain' },
  { name: 'tls.key', holds: 'key' },
  { name: 'ca.crt', holds: 'bundle' },
]

beforeAll(async () => {
  node = await startNode()
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

it('--once without an identity is 1, with an agent that is not there 3', async () => {
  const sets = [{ folder: at('none'), files: tls }]
  const config = configOf('none.yaml', { logLevel: 'error', sets })
  const args = ['svid', 'write', '--once', '--timeout', '2s', '--config']
  expect(await castellan([...args, config])).toEqual({
    code: 1,
    stdout: '',
    stderr: `castellan: not written: ${at('none')}: no identity issued\n  castellan svid fetch x509, as the same user, says what to register\n`,
  })
  const away = configOf('away.yaml', {
    logLevel: 'error',
    workloadApi: `unix://${at('none.sock')}`,
    sets,
  })
  const { code, stderr } = await castellan([...args, away])
  expect([code, stderr]).toEqual([3, expect.stringContaining(`${at('none')}: `)])
  expect(readdirSync(node.folder)).not.toContain('none')
})

it('writes once for what starts afterwards', async () => {
  entryId = await node.register('/web', [`unix:uid:${uid}`])
  const files = [
    ...tls,
    { name: 'token', holds: 'jwt', audience: ['db'] },
    { name: 'jwks.json', holds: 'jwt-bundle' },
  ]
  const config = configOf('once.yaml', { logLevel: 'error', sets: [{ id, folder: 'once', files }] })
  const { code, stdout, stderr } = await castellan([
    ...['svid', 'write', '--once', '--config', config, '-o', 'json'],
  ])
  expect([code, stderr.includes('"level":"error"')]).toEqual([0, false])
  expect(JSON.parse(stdout)).toMatchObject([{ folder: at('once'), spiffeId: id, missing: [] }])
  expect(new X509Certificate(read('once/current/tls.crt')).subjectAltName).toBe(`URI:${id}`)
  const keys = createLocalJWKSet(JSON.parse(read('once/current/jwks.json')))
  const { payload } = await jwtVerify(read('once/current/token'), keys, { audience: 'db' })
  expect(payload.sub).toBe(id)
})

it('an identity that is not that of this process is refused by name', async () => {
  const other = `spiffe://${trustDomain}/other`
  const config = configOf('other.yaml', {
    logLevel: 'error',
    sets: [{ id: other, folder: 'other', files: tls }],
  })
  const args = ['svid', 'write', '--once', '--timeout', '5s', '--config', config]
  const { code, stderr } = await castellan(args)
  expect([code, stderr]).toEqual([
    1,
    expect.stringContaining(`${other} is not given to this process; it is ${id}`),
  ])
})

it('follows the identity until it is stopped, tells a command, and says how it stands', async () => {
  const port = await freePort()
  const told = at('told')
  const config = configOf('files.yaml', {
    operations: `127.0.0.1:${port}`,
    sets: [
      {
        folder: 'tls',
        files: tls,
        notify: { command: ['/bin/cp', at('tls/current/tls.crt'), told] },
      },
    ],
  })
  await using writer = runCastellan(['svid', 'write', '-c', config])
  await writer.line((line) => line.includes('files written'))
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`)
    return `${response.status} ${await response.text()}`
  }
  await expect.poll(() => get('/readyz'), { timeout: 60_000 }).toBe('200 ok\n')
  expect(read('told')).toBe(read('tls/current/tls.crt'))
  expect(await get('/metrics')).toContain(`castellan_files_good{folder="${at('tls')}"} 1`)
  const before = read('told')
  await createClient(Entry, node.local).batchUpdateEntry({
    entries: [{ id: entryId, dnsNames: ['web.test'] }],
    inputMask: { dnsNames: true },
  })
  // while it is copied it is empty
  const isCopied = () => ![before, ''].includes(read('told'))
  await expect.poll(isCopied, { timeout: 60_000 }).toBe(true)
  expect(new X509Certificate(read('told')).subjectAltName).toContain('DNS:web.test')

  await createClient(Entry, node.local).batchDeleteEntry({ ids: [entryId] })
  await writer.line((line) => line.includes('files are not up to date'))
  expect(await get('/readyz')).toBe(`503 not ready: ${at('tls')}: no identity issued\n`)
  expect(readdirSync(at('tls/current')).sort()).toEqual(['ca.crt', 'tls.crt', 'tls.key'])
  expect(await writer.stop()).toBe(0)
  expect([...writer.stdout, ...writer.stderr].join()).not.toMatch(/PRIVATE KEY|eyJ/)
}, 240_000)

it('a configuration that is wrong is named with its place', async () => {
  const config = configOf('wrong.yaml', {
    sets: [{ folder: 'x', files: [{ name: 'k', holds: 'all' }] }],
  })
  const { code, stderr } = await castellan(['svid', 'write', '--config', config])
  expect([code, stderr]).toEqual([
    2,
    expect.stringMatching(/wrong\.yaml:\d+ sets\[0\]\.files\[0\]\.holds: /),
  ])
})

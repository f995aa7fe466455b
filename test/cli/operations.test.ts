// The commands of operators against a running authority, as scripts call them.
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { parseBundleDocument } from '../../spiffe/bundle-document.ts'
import { toPem } from '../../spiffe/pem.ts'
import { foreignDomain, startEndpoint } from '../support/bundle-endpoint.ts'
import { startCastellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'
import { sharedCa } from '../support/shared-ca.ts'

const ca = sharedCa()
const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const at = (name: string) => join(folder.path, name)

const castellan = (...args: string[]) =>
  startCastellan(args, { cwd: folder.path, env: { CASTELLAN_CA_SOCKET: ca.running.socket } })

/** The value that `-o json` prints; the command has to succeed. */
async function json(...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await castellan(...args, '-o', 'json')
  expect(`${code} ${stderr}`).toBe('0 ')
  return JSON.parse(stdout)
}

describe('castellan authority', () => {
  it('prepares, activates, taints and revokes, and shows how it stands', async () => {
    const before = await json('authority', 'status')
    expect(before).toMatchObject({
      authorities: [{ kind: 'x509', phase: 'active', live: 1 }, { kind: 'jwt' }, { kind: 'wit' }],
      connectedAgents: 0,
      laggards: [],
      outlook: { holders: 0, firstFailsAt: '' },
      overrides: [],
    })
    const made = await json('authority', 'prepare')
    expect(made).toMatchObject({ kind: 'x509', expiresAt: expect.stringMatching(/Z$/) })
    const { authorityId } = made as { authorityId: string }
    const early = await castellan('authority', 'revoke', authorityId)
    expect(early.code).toBe(1)
    expect(early.stderr).toContain('is prepared, not old')
    await json('authority', 'activate', authorityId, '--force', 'a drill')
    const { authorities } = (await json('authority', 'status')) as {
      authorities: { id: string; phase: string }[]
    }
    const old = authorities.find(({ phase }) => phase === 'old')?.id ?? ''
    await json('authority', 'taint', old)
    const { stdout } = await castellan('authority', 'status')
    expect(stdout).toMatch(new RegExp(`x509 +tainted +${old}`))
    expect(stdout).toContain('no agent is connected\n')
    await json('authority', 'revoke', old)
    const after = (await json('authority', 'status')) as typeof before & { authorities: object[] }
    expect(after.authorities).toHaveLength(3)
  })
}, 120_000)

describe('castellan bundle and federation', () => {
  it('shows our bundle in either format', async () => {
    const pem = await castellan('bundle', 'show')
    expect(pem.stdout).toMatch(/^-----BEGIN CERTIFICATE-----\n/)
    const { stdout } = await castellan('bundle', 'show', '--format', 'spiffe')
    const document = parseBundleDocument(stdout, 'stdout')
    expect([document.x509, document.jwt, document.wit].map((it) => it.length)).toEqual([1, 1, 1])
    expect(document.sequence).toBeGreaterThan(0n)
  })

  it('sets, lists, shows and deletes that of another trust domain', async () => {
    const { stdout } = await castellan('bundle', 'show', '--format', 'spiffe')
    writeFileSync(at('other.json'), stdout)
    writeFileSync(at('other.pem'), (await castellan('bundle', 'show')).stdout)
    const spiffe = ['--format', 'spiffe', '--file', at('other.json')]
    await json('bundle', 'set', 'other.org', ...spiffe)
    expect(await json('bundle', 'list')).toMatchObject([
      { trustDomain: 'other.org', jwtKeys: [expect.any(String)] },
    ])
    await json('bundle', 'set', 'other.org', '--file', at('other.pem'))
    expect(await json('bundle', 'show', '--trust-domain', 'other.org')).toMatchObject({
      trustDomain: 'other.org',
      jwtKeys: [],
    })
    const own = await castellan('bundle', 'set', 'example.org', '--file', at('other.pem'))
    expect(own).toMatchObject({ code: 2, stderr: expect.stringContaining('our own trust domain') })
    const none = await castellan('bundle', 'set', 'other.org', '--file', at('none'))
    expect(none).toMatchObject({ code: 2, stderr: expect.stringContaining('cannot read') })
    await json('bundle', 'delete', 'other.org', '--mode', 'dissociate')
    const gone = await castellan('bundle', 'delete', 'other.org')
    expect(gone.code).toBe(1)
  })

  it('keeps relationships with other trust domains', async () => {
    // under a name that nobody can have: the authority fetches from there
    const url = 'https://other.test/bundle'
    const id = 'spiffe://other.org/spire/server'
    const created = await json('federation', 'create', 'other.org', '--url', url)
    expect(created).toMatchObject({ url, profile: 'https_web', hasBundle: false })
    const more = ['--endpoint-id', id, '--bundle', at('other.json')]
    await json('federation', 'update', 'other.org', '--url', url, ...more)
    const shown = { profile: 'https_spiffe', endpointId: id, hasBundle: true }
    expect(await json('federation', 'show', 'other.org')).toMatchObject(shown)
    expect(await json('federation', 'list')).toMatchObject([shown])
    const plain = await castellan('federation', 'create', 'other.net', '--url', 'http://other.net')
    expect(plain.code).toBe(2)
    await json('federation', 'delete', 'other.org')
    expect(await json('federation', 'list')).toEqual([])
  })

  it('fetches the bundle of another trust domain when it is told to', async () => {
    const id = 'spiffe://other.test/spire/server'
    const domain = foreignDomain('other.test')
    await using endpoint = await startEndpoint(domain.credential(id), domain.document())
    writeFileSync(at('first.pem'), toPem(domain.root, 'CERTIFICATE'))
    const where = ['--url', endpoint.url, '--endpoint-id', id]
    const first = ['--bundle', at('first.pem'), '--format', 'pem']
    await json('federation', 'create', 'other.test', ...where, ...first)
    const done = { trustDomain: 'other.test', refreshed: true }
    expect(await json('federation', 'refresh', 'other.test')).toEqual(done)
    expect((await castellan('federation', 'refresh', 'other.test')).stdout).toBe(
      'the bundle of other.test is as its endpoint has it\n',
    )
    await endpoint.goesAway()
    const away = await castellan('federation', 'refresh', 'other.test')
    expect(away).toMatchObject({ code: 3, stderr: expect.stringContaining('ECONNREFUSED') })
    await json('federation', 'delete', 'other.test')
    const unknown = await castellan('federation', 'refresh', 'other.test')
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('no relationship') })
    expect((await castellan('federation', 'refresh', '--help')).stdout).toContain('<trust-domain>')
  })
}, 120_000)

describe('castellan deny and issued', () => {
  it('denies, lists and takes back', async () => {
    const id = 'spiffe://example.org/thief'
    const rule = await json('deny', 'add', '--spiffe-id', id, '--reason', 'seen', '--for', '1h')
    expect(rule).toMatchObject({ kind: 'spiffeId', denied: id, reason: 'seen' })
    expect(await json('deny', 'list')).toEqual([rule])
    expect((await castellan('deny', 'list')).stdout).toMatch(/thief .* seen\n/)
    await json('deny', 'remove', (rule as { id: string }).id)
    expect((await castellan('deny', 'list')).stdout).toBe('nothing is denied\n')
    for (const args of [[], ['--spiffe-id', id, '--serial', '41']])
      expect((await castellan('deny', 'add', ...args)).code).toBe(2)
    expect((await castellan('deny', 'remove', 'x')).code).toBe(1)
  })

  it('lists what was issued, or says that nothing was', async () => {
    const id = 'spiffe://example.org/spire/server'
    const rows = await json('issued', 'list', '--id', id, '--since', '2h', '--limit', '1')
    expect(rows).toMatchObject([
      { spiffeId: id, certificate: expect.stringContaining('BEGIN CERTIFICATE') },
    ])
    expect((await castellan('issued', 'list', '--id', `${id}s`)).code).toBe(1)
    expect((await castellan('issued', 'list', '--since', 'yesterday')).code).toBe(2)
  })
}, 120_000)

describe('castellan ca backup and restore', () => {
  it('makes a file that only its owner can read, from which an authority can be made', async () => {
    await json('ca', 'backup', '--to', at('backup'))
    expect(statSync(at('backup')).mode & 0o777).toBe(0o600)
    const lines = ['trustDomain: example.org', 'state: ./restored', 'unlock: { keyFile: ./ca.key }']
    writeFileSync(at('ca.yaml'), lines.join('\n'))
    const early = await castellan('ca', 'restore', '--from', at('backup'))
    expect(early).toMatchObject({ code: 2, stderr: expect.stringContaining('ca.key') })
    writeFileSync(at('ca.key'), readFileSync(join(ca.folder, 'ca.key')), { mode: 0o600 })
    expect(await json('ca', 'restore', '--from', at('backup'))).toMatchObject({ authorities: 3 })
    const again = await castellan('ca', 'restore', '--from', at('backup'))
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('holds an authority') })
  })
}, 120_000)

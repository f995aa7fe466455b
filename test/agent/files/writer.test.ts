// Sets of files as they follow what they are made of, and who is told of it.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { audienceKey, type MaterialSource } from '../../../agent/files/material.ts'
import { type SetStatus, startFileWriter } from '../../../agent/files/writer.ts'
import { type Clock, systemClock } from '../../../runtime/clock.ts'
import { bundleToPem } from '../../../spiffe/bundle.ts'
import { IdentityError } from '../../../spiffe/errors.ts'
import { chainToPem } from '../../../spiffe/pem.ts'
import { memoryLog } from '../../support/ca.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import {
  createTestSource,
  federated,
  newMaterial,
  otherName,
  ownName,
  setsOf,
  untilStatus,
} from '../../support/file-material.ts'
import { testFolder } from '../../support/folder.ts'

function newFolder(): string {
  const folder = testFolder()
  onTestFinished(() => folder[Symbol.dispose]())
  return folder.path
}

/** A writer of one set, `text` in YAML, in a folder of its own. */
function start(
  text: string,
  source: MaterialSource,
  { folder = newFolder(), clock = systemClock }: { folder?: string; clock?: Clock } = {},
) {
  const { log, lines } = memoryLog()
  const writer = startFileWriter({ sets: setsOf(folder, text), source, clock, log })
  onTestFinished(() => writer[Symbol.asyncDispose]())
  const read = (name: string) => readFileSync(join(folder, 'tls/current', name), 'utf8')
  return { writer, folder, lines, read }
}

const isFailed = (untold: string | undefined) => untold !== undefined && untold !== 'not told yet'
const isTold = (version: string) => (it: SetStatus) =>
  it.version === version && it.untold === undefined
const pair = '{ name: tls.crt, holds: chain }, { name: tls.key, holds: key }'

describe('what is in the files', () => {
  it('is the chain, the key, bundles, tokens and keys of tokens, alone or together', async () => {
    const material = newMaterial({
      tokens: new Map([[audienceKey(['db', 'cache']), 'eyJ.of.db']]),
      jwks: new Map([
        [ownName, '{"keys":[1]}'],
        [otherName, '{"keys":[2]}'],
      ]),
    })
    const all = { ...material, bundles: [material.bundles[0], federated] as const }
    const { writer, read } = start(
      `
- folder: tls
  files:
  - { name: tls.crt, holds: chain, mode: "0644" }
  - { name: tls.key, holds: key }
  - { name: both.pem, holds: key+chain }
  - { name: trusted.pem, holds: chain+bundle }
  - { name: ca.crt, holds: bundle }
  - { name: other.crt, holds: bundle, trustDomain: other.org }
  - { name: others.crt, holds: federated-bundles }
  - { name: token, holds: jwt, audience: [db, cache] }
  - { name: jwks.json, holds: jwt-bundle }
  - { name: other.json, holds: jwt-bundle, trustDomain: other.org }
`,
      createTestSource(all),
    )
    expect(await untilStatus(writer, ({ version }) => version === 'v1')).toMatchObject({
      ...{ id: 'spiffe://example.org/web', notAfter: material.notAfter, trouble: undefined },
      ...{ missing: [], untold: undefined },
    })
    const [cert, key] = [read('tls.crt'), read('tls.key')]
    expect(new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))).toBe(true)
    expect(cert).toBe(chainToPem(material.chain))
    expect(read('both.pem')).toBe(key + cert)
    expect(read('ca.crt')).toBe(bundleToPem(material.bundles[0]))
    expect(read('trusted.pem')).toBe(cert + read('ca.crt'))
    expect([read('other.crt'), read('others.crt')]).toEqual(Array(2).fill(bundleToPem(federated)))
    expect(read('token')).toBe('eyJ.of.db')
    expect([read('jwks.json'), read('other.json')]).toEqual(['{"keys":[1]}', '{"keys":[2]}'])
  })

  it('changes with the SVID, and only then', async () => {
    const source = createTestSource(newMaterial())
    const { writer, folder, read } = start(`[{ folder: tls, files: [${pair}] }]`, source)
    await untilStatus(writer, ({ version }) => version === 'v1')
    const same = newMaterial()
    source.become(same)
    await untilStatus(writer, ({ version }) => version === 'v2')
    source.become({ ...same, chain: [...same.chain] })
    source.become(newMaterial({ notAfter: 1 }))
    await untilStatus(writer, ({ notAfter }) => notAfter === 1)
    expect(readdirSync(join(folder, 'tls')).sort()).toEqual(['current', 'v2', 'v3'])
    const leaf = new X509Certificate(read('tls.crt'))
    expect(leaf.checkPrivateKey(createPrivateKey(read('tls.key')))).toBe(true)
  })

  it('is left out and named when it is not there, and nothing else waits for it', async () => {
    const source = createTestSource(newMaterial({ lacking: ['no token for db: away'] }))
    const files = `${pair}, { name: other.crt, holds: bundle, trustDomain: other.org }, { name: t, holds: jwt, audience: [db] }`
    const { writer, folder, lines } = start(`[{ folder: tls, files: [${files}] }]`, source)
    const { missing } = await untilStatus(writer, ({ version }) => version === 'v1')
    expect(missing).toEqual(['other.crt', 't', 'no token for db: away'])
    expect(lines.join()).toContain('files are left out')
    const material = newMaterial({ tokens: new Map([[audienceKey(['db']), 'eyJ.t']]) })
    source.become({ ...material, bundles: [material.bundles[0], federated] })
    expect((await untilStatus(writer, ({ version }) => version === 'v2')).missing).toEqual([])
    expect(readdirSync(join(folder, 'tls/current')).sort()).toEqual(
      ['other.crt', 't', 'tls.crt', 'tls.key'].sort(),
    )
  })

  it('is PKCS#12 under the password of a file that others cannot read', async () => {
    const folder = newFolder()
    const source = createTestSource(newMaterial())
    writeFileSync(join(folder, 'password'), 'changeit\n', { mode: 0o644 })
    const files =
      '{ name: s.p12, holds: pkcs12, passwordFile: password }, { name: t.p12, holds: pkcs12-bundle, passwordFile: password }'
    const { writer, lines } = start(`[{ folder: tls, files: [${files}] }]`, source, { folder })
    const { trouble } = await untilStatus(writer, (it) => it.trouble?.includes('password') === true)
    expect(trouble).toBe(
      `the password file ${join(folder, 'password')} can be read by everybody; chmod o= it`,
    )
    rmSync(join(folder, 'password'))
    writeFileSync(join(folder, 'password'), 'changeit\n', { mode: 0o600 })
    await untilStatus(writer, ({ version }) => version === 'v1')
    await writer[Symbol.asyncDispose]()
    // the same again, by another writer: salts differ, the content does not
    const again = start(`[{ folder: tls, files: [${files}] }]`, source, { folder })
    await untilStatus(again.writer, ({ version }) => version === 'v1')
    writeFileSync(join(folder, 'password'), 'another', { mode: 0o600 })
    source.become(newMaterial())
    await untilStatus(again.writer, ({ version }) => version === 'v2')
    expect([...lines, ...again.lines].join()).not.toMatch(/changeit|another/)
  })
})

it('a token is written anew when it is due', async () => {
  const clock = createFakeClock(Date.now())
  const [until, later] = [clock.now() + 60_000, Number.POSITIVE_INFINITY]
  const withToken = (token: string, until: number) =>
    newMaterial({ until, tokens: new Map([[audienceKey(['db']), token]]) })
  const states = [withToken('first', until), withToken('second', later)]
  const source = {
    ...createTestSource(newMaterial()),
    now: async () => states.shift() ?? newMaterial(),
  }
  const files = '{ name: t, holds: jwt, audience: [db] }'
  const set = `[{ folder: tls, files: [${files}] }]`
  const { writer, read } = start(set, source, { clock })
  await clock.asleep()
  await clock.advance(59_999)
  expect(writer.status()).toMatchObject([{ version: 'v1' }])
  expect(read('t')).toBe('first')
  await clock.advance(1)
  await untilStatus(writer, ({ version }) => version === 'v2')
  expect(read('t')).toBe('second')
})

const isRoot = process.geteuid?.() === 0

it.skipIf(!isRoot)(
  `files have an owner of their own (${isRoot ? 'as root' : 'not as this user'})`,
  async () => {
    const source = createTestSource(newMaterial())
    const whose = 'owner: 65534, group: 65533, mode: "0640"'
    const { writer, folder } = start(`[{ folder: tls, ${whose}, files: [${pair}] }]`, source)
    await untilStatus(writer, ({ version }) => version === 'v1')
    const at = join(folder, 'tls/v1')
    const facts = [at, join(at, 'tls.key')].map((path) => {
      const { uid, gid, mode } = statSync(path)
      return [uid, gid, (mode & 0o7777).toString(8)]
    })
    expect(facts).toEqual([
      [65534, 65533, '750'],
      [65534, 65533, '640'],
    ])
    // known again, and not written once more
    const again = start(`[{ folder: tls, ${whose}, files: [${pair}] }]`, source, { folder })
    await untilStatus(again.writer, ({ trouble }) => trouble === undefined)
    expect(again.writer.status()[0]?.version).toBe('v1')
  },
)

describe('who uses the files', () => {
  it('is signalled after each change', async () => {
    const folder = newFolder()
    writeFileSync(join(folder, 'pid'), `${process.pid}\n`)
    const seen: string[] = []
    const source = createTestSource(newMaterial())
    const notify = '{ pidFile: pid, signal: USR2 }'
    const signalled = () => {
      const { promise, resolve } = Promise.withResolvers<void>()
      process.once('SIGUSR2', () => {
        seen.push(readFileSync(join(folder, 'tls/current/tls.crt'), 'utf8'))
        resolve()
      })
      return promise
    }
    const first = signalled()
    const text = `[{ folder: tls, files: [${pair}], notify: ${notify} }]`
    const { writer } = start(text, source, { folder })
    await first
    const next = newMaterial()
    const second = signalled()
    source.become(next)
    await second
    expect(seen[1]).toBe(chainToPem(next.chain))
    expect(seen[0]).not.toBe(seen[1])
    await untilStatus(writer, isTold('v2'))
  })

  it('is told by a command without a shell', async () => {
    const folder = newFolder()
    const out = join(folder, 'told $(id)')
    const command = JSON.stringify(['/bin/cp', join(folder, 'tls/current/tls.crt'), out])
    const text = `[{ folder: tls, files: [${pair}], notify: { command: ${command} } }]`
    const material = newMaterial()
    const { writer } = start(text, createTestSource(material), { folder })
    await untilStatus(writer, isTold('v1'))
    expect(readFileSync(out, 'utf8')).toBe(chainToPem(material.chain))
  })

  it.each([
    ['/bin/sh, -c, "echo no such service >&2; exit 3"', 'ended with 3: no such service'],
    ['/nowhere/program', '/nowhere/program could not be started (ENOENT)'],
    ['/bin/sh, -c, "cat tls.key >&2; echo -----BEGIN PRIVATE KEY >&2; false"', 'ended with 1'],
    ['/bin/sleep, "600"], timeout: [50ms', '/bin/sleep was killed after 0.05 s'],
  ])('that a command fails (%s) is said, and tried with the next change', async (argv, why) => {
    const folder = newFolder()
    const command = `command: [${argv}]`.replace('timeout: [50ms]', 'timeout: 50ms')
    const source = createTestSource(newMaterial())
    const text = `[{ folder: tls, files: [${pair}], notify: { ${command} } }]`
    const { writer, lines } = start(text, source, { folder })
    const { untold, trouble } = await untilStatus(writer, (it) => isFailed(it.untold))
    expect([untold, trouble]).toEqual([expect.stringContaining(why), undefined])
    source.become(newMaterial())
    await untilStatus(writer, (it) => it.version === 'v2' && isFailed(it.untold))
    const told = lines.filter((line) => line.includes('was not told'))
    expect(told).toHaveLength(2)
    expect(lines.join()).not.toContain('PRIVATE KEY')
  })

  it.each([
    ['0', 'holds no number of a process'],
    ['1', 'holds no number of a process'],
    ['-5', 'holds no number of a process'],
    ['999999999', 'SIGHUP to process 999999999 of'],
    [undefined, 'cannot read'],
  ])('is not signalled by a pid file that says %s', async (content, why) => {
    const folder = newFolder()
    if (content !== undefined) writeFileSync(join(folder, 'pid'), content)
    const text = `[{ folder: tls, files: [${pair}], notify: { pidFile: pid, signal: HUP } }]`
    const { writer } = start(text, createTestSource(newMaterial()), { folder })
    const { untold } = await untilStatus(writer, (it) => isFailed(it.untold))
    expect(untold).toContain(why)
  })

  it('is told after a restart, when the writer ended before it could', async () => {
    const folder = newFolder()
    const source = createTestSource(newMaterial())
    const mark = join(folder, 'mark')
    const set = (program: string) =>
      `[{ folder: tls, files: [${pair}], notify: { command: [${program}, ${mark}] } }]`
    const first = start(set('/bin/false'), source, { folder })
    await untilStatus(first.writer, (it) => isFailed(it.untold))
    await first.writer[Symbol.asyncDispose]()
    const second = start(set('/usr/bin/touch'), source, { folder })
    await untilStatus(second.writer, isTold('v1'))
    expect(existsSync(mark)).toBe(true)
    rmSync(mark)
    await second.writer[Symbol.asyncDispose]()
    const third = start(set('/usr/bin/touch'), source, { folder })
    await untilStatus(third.writer, isTold('v1'))
    expect(existsSync(mark)).toBe(false)
  })
})

describe('when there is nothing to write, or no place for it', () => {
  it('says why, and keeps the files that are there', async () => {
    const none = new IdentityError('ERR_NO_IDENTITY', 'no entry gives it')
    const source = createTestSource(none)
    const { writer, lines, read } = start(`[{ folder: tls, files: [${pair}] }]`, source)
    const first = await untilStatus(writer, ({ trouble }) => trouble === 'no entry gives it')
    expect(first).toMatchObject({ version: undefined, id: undefined })
    source.become(newMaterial())
    await untilStatus(writer, ({ trouble }) => trouble === undefined)
    const kept = read('tls.crt')
    source.become(none)
    expect(await untilStatus(writer, ({ trouble }) => trouble !== undefined)).toMatchObject({
      version: 'v1',
      trouble: 'no entry gives it',
    })
    expect(read('tls.crt')).toBe(kept)
    const said = lines.filter((line) => line.includes('no entry gives it'))
    expect(said.map((line) => JSON.parse(line).level)).toEqual(['warn', 'error'])
  })

  it('tries again by itself, and says once what is wrong', async () => {
    const folder = newFolder()
    writeFileSync(join(folder, 'tls'), 'no folder')
    const source = createTestSource(newMaterial())
    const clock = createFakeClock(Date.now())
    const set = `[{ folder: tls, files: [${pair}] }]`
    const { writer, lines } = start(set, source, { folder, clock })
    const { trouble } = await untilStatus(writer, (it) => it.trouble !== 'not written yet')
    expect(trouble).toContain(`${join(folder, 'tls')} could not be brought up to date`)
    await clock.asleep()
    for (let again = 0; again < 3; again++) {
      await clock.advance(30_000)
      await clock.asleep()
    }
    rmSync(join(folder, 'tls'))
    await clock.advance(30_000)
    await untilStatus(writer, (it) => it.trouble === undefined)
    expect(lines.filter((line) => line.includes('brought up to date'))).toHaveLength(1)
  })

  it('has no secret in its log', async () => {
    const material = newMaterial({ tokens: new Map([[audienceKey(['db']), 'eyJsecret.t.s']]) })
    const source = createTestSource(material)
    const files = `${pair}, { name: t, holds: jwt, audience: [db] }`
    const { writer, lines } = start(`[{ folder: tls, files: [${files}] }]`, source)
    await untilStatus(writer, ({ version }) => version === 'v1')
    const key = Buffer.from(material.key).toString('base64').slice(0, 40)
    const text = lines.join('\n')
    expect(text).toContain('files written')
    for (const secret of [key, 'eyJsecret', 'PRIVATE KEY']) expect(text).not.toContain(secret)
  })
})

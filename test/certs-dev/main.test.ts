import { spawnSync } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { leafLifetime } from '../../certs-dev/development.ts'
import { type Manifest, writeDevelopmentCertificates } from '../../certs-dev/files.ts'
import { bundleOfPem, bundleSourceOf } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { parsePem } from '../../spiffe/pem.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { refusalOf } from '../support/refusal.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'castellan-certs-dev-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

const trustDomain = parseTrustDomain('dev.example')
const now = Date.UTC(2030, 1, 2)
const read = (name: string) => readFileSync(join(folder, name), 'utf8')

function refusals({ certificates, bundles }: Manifest, at: number): (string | undefined)[] {
  const source = bundleSourceOf(
    ...Object.entries(bundles).map(([td, file]) =>
      bundleOfPem(parseTrustDomain(td), read(file), file),
    ),
  )
  return certificates.map(({ file }) => {
    const chain = parsePem(read(file), 'CERTIFICATE', file)
    return refusalOf(() => verifySvid(chain, source, { now: at }))?.message
  })
}

describe('the files of a development CA', () => {
  it('are what the manifest says, each with its key, keys for the owner only', () => {
    const { isNew, manifest } = writeDevelopmentCertificates(folder, { trustDomain, now })
    expect(isNew).toBe(true)
    expect(JSON.parse(read('manifest.json'))).toEqual(manifest)
    const outcomes = refusals(manifest, now)
    for (const [i, { name, key, expect: wanted, reason }] of manifest.certificates.entries()) {
      if (wanted === 'accept') expect(outcomes[i], name).toBeUndefined()
      else expect(outcomes[i], name).toContain(reason)
      expect(statSync(join(folder, key)).mode & 0o777, key).toBe(0o600)
      expect(createPrivateKey(read(key)).type, key).toBe('private')
    }
    const files = manifest.certificates.flatMap(({ file, key }) => [file, key])
    expect(readdirSync(folder).toSorted()).toEqual([...files, 'manifest.json'].toSorted())
  })

  it('are kept while they are good, and made anew at half of their life', () => {
    const first = writeDevelopmentCertificates(folder, { trustDomain, now })
    const good = read('good.pem')
    const second = writeDevelopmentCertificates(folder, {
      trustDomain,
      now: now + leafLifetime / 2 - 1,
    })
    expect(second).toEqual({ isNew: false, manifest: first.manifest })
    expect(read('good.pem')).toBe(good)
    const third = writeDevelopmentCertificates(folder, { trustDomain, now: now + leafLifetime / 2 })
    expect(third.isNew).toBe(true)
    expect(read('good.pem')).not.toBe(good)
    expect(statSync(join(folder, 'good-key.pem')).mode & 0o777).toBe(0o600)
  })

  it('are made anew for another trust domain, or when one is missing', () => {
    writeDevelopmentCertificates(folder, { trustDomain, now })
    const other = parseTrustDomain('other.example')
    expect(writeDevelopmentCertificates(folder, { trustDomain: other, now }).isNew).toBe(true)
    rmSync(join(folder, 'good-key.pem'))
    expect(writeDevelopmentCertificates(folder, { trustDomain: other, now }).isNew).toBe(true)
    writeFileSync(join(folder, 'manifest.json'), '{"version": 0}')
    expect(writeDevelopmentCertificates(folder, { trustDomain: other, now }).isNew).toBe(true)
  })

  it('are not written beside a manifest that nobody can read', () => {
    writeFileSync(join(folder, 'manifest.json'), '{')
    const refusal = refusalOf(() => writeDevelopmentCertificates(folder, { trustDomain, now }))
    expect(refusal?.code).toBe('ERR_CONFIG')
    expect(refusal?.message).toContain(
      `${join(folder, 'manifest.json')} is unreadable; delete it: `,
    )
    expect(readdirSync(folder)).toEqual(['manifest.json'])
  })
})

describe('npm run certs-dev', () => {
  const main = fileURLToPath(new URL('../../certs-dev/main.ts', import.meta.url))
  const run = (...options: readonly string[]) =>
    spawnSync(process.execPath, [main, ...options], { encoding: 'utf8' })

  it('writes where it is told, says what each file is good for, and changes nothing the second time', () => {
    const first = run('--out', folder, '--trust-domain', 'td.example')
    expect([first.status, first.stderr]).toEqual([0, ''])
    expect(first.stdout).toContain('wrote 19 certificates')
    expect(first.stdout).toMatch(/^ {2}good\.pem +accept {2}a server or a workload/m)
    const good = read('good.pem')
    const second = run('--out', folder, '--trust-domain', 'td.example')
    expect(second.status).toBe(0)
    expect(second.stdout).toContain('kept, still good until')
    expect(read('good.pem')).toBe(good)
  })

  it('helps', () => {
    const { status, stdout } = run('--help')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^usage: npm run certs-dev -- \[--out DIR\] \[--trust-domain TD\]\n/)
  })

  it.each([
    [['--out', '/nowhere', '--trust-domain', 'TD'], 'the trust domain may contain only'],
    [['--verbose'], "Unknown option '--verbose'"],
    [['here'], "Unexpected argument 'here'"],
  ])('refuses %j with exit code 2', (options, message) => {
    const { status, stdout, stderr } = run(...options)
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^certs-dev: /)
    expect(stderr).toContain(message)
  })
})

// PKCS#12 files as OpenSSL and Java read them, whatever kind of key they hold.
import { spawnSync } from 'node:child_process'
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keyStore, trustStore } from '../../../agent/files/pkcs12.ts'
import { issueDev } from '../../../certs-dev/authority.ts'
import { toPem } from '../../../spiffe/pem.ts'
import { foreignDomain } from '../../support/bundle-endpoint.ts'
import { testFolder } from '../../support/folder.ts'
import { ec, nodeIssuer, rsa } from '../../support/node-certificates.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())

/** Why a program cannot be asked; undefined when it can. CI has it, or fails. */
function whyNot(program: string, arg: string): string | undefined {
  if (spawnSync(program, [arg]).status === 0) return undefined
  const reason = `${program} is not installed`
  if (process.env.CI === 'true') throw new Error(reason)
  return reason
}

const noOpenssl = whyNot('openssl', 'version')
const noKeytool = whyNot('keytool', '-help')
const password = 'correct horse " $battery'

function fileOf(name: string, bytes: Uint8Array): string {
  const path = join(folder.path, name)
  writeFileSync(path, bytes)
  return path
}

function ask(program: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  return { status, stdout, stderr }
}

interface Identity {
  readonly chain: readonly Uint8Array[]
  readonly key: KeyObject
}

const derOf = (key: KeyObject) => key.export({ format: 'der', type: 'pkcs8' })
const identities = new Map<string, Identity>()

beforeAll(async () => {
  const { ca } = foreignDomain('example.org')
  const life = { notBefore: Date.now() - 60_000, notAfter: Date.now() + 3_600_000 }
  const dev = issueDev(ca, { id: 'spiffe://example.org/web', ...life })
  identities.set('P-256', { chain: [...dev.chain, ca.certificate], key: dev.privateKey })
  const issuer = await nodeIssuer('issuer')
  for (const [name, algorithm] of [
    ['P-384', ec],
    ['RSA', rsa],
  ] as const) {
    const { certificate, key } = await issuer.node(algorithm)
    const chain = [certificate, issuer.certificate].map((it) => new Uint8Array(it.rawData))
    identities.set(name, { chain, key })
  }
})

function identityOf(kind: string): Identity {
  const identity = identities.get(kind)
  if (identity === undefined) throw new Error(kind)
  return identity
}

const storeOf = (kind: string, alias = 'web') => {
  const { chain, key } = identityOf(kind)
  return keyStore({ chain, key: derOf(key), alias }, password)
}

describe.each(['P-256', 'P-384', 'RSA'])('a key store with a key of %s', (kind) => {
  it.skipIf(noOpenssl)(`is read by openssl (${noOpenssl ?? 'it is here'})`, () => {
    const path = fileOf(`${kind}.p12`, storeOf(kind).make())
    const read = ask('openssl', 'pkcs12', '-in', path, '-passin', `pass:${password}`, '-nodes')
    expect([read.status, read.stderr]).toEqual([0, ''])
    const { chain, key } = identityOf(kind)
    const [pem = ''] = /-----BEGIN PRIVATE KEY[\s\S]*?END PRIVATE KEY-----/.exec(read.stdout) ?? []
    expect(createPrivateKey(pem).equals(key)).toBe(true)
    expect(read.stdout.match(/-----BEGIN CERT[\s\S]*?END CERTIFICATE-----\n/g)).toEqual(
      chain.map((der) => toPem(der, 'CERTIFICATE')),
    )
    expect(read.stdout).toContain('friendlyName: web')
    const info = ask(
      'openssl',
      'pkcs12',
      '-in',
      path,
      '-passin',
      `pass:${password}`,
      '-info',
      '-noout',
    )
    expect(info.stderr).toContain('PBES2, PBKDF2, AES-256-CBC')
    expect(info.stderr).toContain('MAC: sha256')
    expect(
      ask('openssl', 'pkcs12', '-in', path, '-passin', 'pass:other', '-noout').status,
    ).not.toBe(0)
  })

  it.skipIf(noKeytool)(`is read by Java (${noKeytool ?? 'it is here'})`, () => {
    const path = fileOf(`${kind}.java.p12`, storeOf(kind).make())
    const { status, stdout } = ask(
      'keytool',
      ...['-list', '-v', '-keystore', path, '-storepass', password],
    )
    expect(status).toBe(0)
    expect(stdout).toMatch(/Alias name: web\n[\s\S]*Entry type: PrivateKeyEntry\n/)
    expect(stdout).toContain('Certificate chain length: 2')
  })

  it('is known again, with its password, its content and no other', () => {
    const made = storeOf(kind).make()
    expect(storeOf(kind).isMadeOfTheSame(made)).toBe(true)
    expect(storeOf(kind, 'other').isMadeOfTheSame(made)).toBe(false)
    const { chain, key } = identityOf(kind)
    const entry = { chain, key: derOf(key), alias: 'web' }
    expect(keyStore(entry, 'another').isMadeOfTheSame(made)).toBe(false)
    expect(keyStore({ ...entry, chain: chain.slice(0, 1) }, password).isMadeOfTheSame(made)).toBe(
      false,
    )
    expect(storeOf(kind).isMadeOfTheSame(Buffer.from('no PKCS#12'))).toBe(false)
    expect(storeOf(kind).make()).not.toEqual(made)
  })
})

describe('a trust store', () => {
  const roots = ['example.org', 'other.org'].map((name) => ({
    der: foreignDomain(name).root,
    alias: `${name} 0`,
  }))

  it.skipIf(noOpenssl)(`is read by openssl (${noOpenssl ?? 'it is here'})`, () => {
    const path = fileOf('trust.p12', trustStore(roots, password).make())
    const { status, stdout } = ask(
      'openssl',
      ...['pkcs12', '-in', path, '-passin', `pass:${password}`, '-nokeys'],
    )
    expect(status).toBe(0)
    for (const { der } of roots) expect(stdout).toContain(toPem(der, 'CERTIFICATE'))
  })

  it.skipIf(noKeytool)(`is believed by Java (${noKeytool ?? 'it is here'})`, () => {
    const path = fileOf('trust.java.p12', trustStore(roots, password).make())
    const { stdout } = ask('keytool', '-list', '-keystore', path, '-storepass', password)
    expect(stdout.match(/trustedCertEntry/g)).toHaveLength(2)
    expect(stdout).toMatch(/example\.org 0, [\s\S]*other\.org 0, /)
  })
})

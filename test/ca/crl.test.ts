// Our CRLs, read by OpenSSL and @peculiar/x509.
import 'reflect-metadata'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Authority } from '../../ca/authorities/authorities.ts'
import type { Signing } from '../../ca/authorities/slot.ts'
import { signCrl } from '../../ca/crl.ts'
import { type Serial, serialOf } from '../../spiffe/certificate.ts'
import { toPem } from '../../spiffe/pem.ts'
import { testFolder } from '../support/folder.ts'
import { leafFields, signedLeaf, testSigner } from '../support/leaf.ts'
import { hasOpenssl } from '../support/openssl.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const now = Math.floor(Date.now() / 1000) * 1000
let signer: Signing<Authority>
beforeAll(async () => {
  signer = await testSigner(now)
})

function crlOf(revoked: readonly { serial: Serial; at: number }[], number = 1): Buffer {
  const { key, keyId: authorityKeyId } = signer
  const issuer = signer.certificate.subject
  const times = { thisUpdate: now - 60_000, nextUpdate: now + 3_600_000 }
  return signCrl({ issuer, authorityKeyId, number, ...times, revoked }, key)
}

const serial = fc
  .uint8Array({ minLength: 16, maxLength: 16 })
  .map((bytes) => serialOf(Buffer.concat([Buffer.of(0x41), bytes.subarray(1)])))
const at = fc.integer({ min: 0, max: Date.UTC(2060, 0) / 1000 }).map((seconds) => seconds * 1000)

describe('a CRL', () => {
  it('reads back as it was made, and its signature is its issuer’s', async () => {
    const root = new x509.X509Certificate(Buffer.from(signer.certificate.der))
    const lists = fc.uniqueArray(fc.record({ serial, at }), { selector: (it) => it.serial })
    await fc.assert(
      fc.asyncProperty(lists, fc.nat(), async (revoked, number) => {
        const crl = new x509.X509Crl(crlOf(revoked, number))
        const seen = crl.entries.map((it) => ({
          serial: serialOf(Buffer.from(it.serialNumber, 'hex')),
          at: it.revocationDate.getTime(),
        }))
        expect(seen).toEqual(revoked)
        expect(crl.thisUpdate.getTime()).toBe(now - 60_000)
        expect(crl.nextUpdate?.getTime()).toBe(now + 3_600_000)
        expect(crl.issuer).toBe(root.subject)
        expect(await crl.verify({ publicKey: root })).toBe(true)
      }),
      { numRuns: 50 },
    )
  })

  it.skipIf(!hasOpenssl())('makes OpenSSL refuse what it names, and nothing else', () => {
    const leaves = [leafFields(signer, now), leafFields(signer, now)]
    const write = (name: string, text: string) => writeFileSync(join(folder.path, name), text)
    write('root.pem', toPem(signer.certificate.der, 'CERTIFICATE'))
    for (const [i, fields] of leaves.entries())
      write(`leaf${i}.pem`, toPem(signedLeaf(fields, signer), 'CERTIFICATE'))
    const verdict = (i: number) => {
      const args = ['-crl_check', '-x509_strict', '-CRLfile', 'crl.pem', '-CAfile', 'root.pem']
      const run = spawnSync('openssl', ['verify', ...args, `leaf${i}.pem`], { cwd: folder.path })
      return /OK|certificate revoked/.exec(`${run.stdout}${run.stderr}`)?.[0] ?? `${run.stderr}`
    }
    const verdictsWith = (...listed: readonly number[]) => {
      const named = leaves.filter((_, i) => listed.includes(i))
      const crl = crlOf(named.map((fields) => ({ serial: serialOf(fields.serial), at: now })))
      write('crl.pem', toPem(crl, 'X509 CRL'))
      return [verdict(0), verdict(1)]
    }
    expect(verdictsWith()).toEqual(['OK', 'OK'])
    expect(verdictsWith(0)).toEqual(['certificate revoked', 'OK'])
    expect(verdictsWith(0, 1)).toEqual(['certificate revoked', 'certificate revoked'])
  })
})

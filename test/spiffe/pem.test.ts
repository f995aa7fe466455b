import { execFileSync } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { keyPairToPem, parsePem, toPem } from '../../spiffe/pem.ts'
import { hasOpenssl } from '../support/openssl.ts'
import { refusalOf } from '../support/refusal.ts'
import { ca } from '../support/vectors.ts'

const label = 'CERTIFICATE'
const bytes = fc.uint8Array({ minLength: 1, maxLength: 300 })
const refused = (text: string) => refusalOf(() => parsePem(text, label, 'file.pem'))

describe('PEM', () => {
  it('comes back as it was written, block by block', () => {
    fc.assert(
      fc.property(fc.array(bytes, { minLength: 1, maxLength: 4 }), (blocks) => {
        const text = blocks.map((it) => toPem(it, label)).join('')
        const found = parsePem(text, label, 'file.pem')
        expect(found.map((it) => it.toString('hex'))).toEqual(
          blocks.map((it) => Buffer.from(it).toString('hex')),
        )
        expect(parsePem(text.replaceAll('\n', '\r\n'), label, 'file.pem')).toEqual(found)
      }),
    )
  })

  it('is written as Node writes it', () => {
    const { certificate } = ca('root')
    expect(toPem(certificate, label)).toBe(new X509Certificate(certificate).toString())
  })

  it('of a chain with its key is what Node reads again, in order', () => {
    const chain = [ca('other').certificate, ca('root').certificate]
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const { cert, key } = keyPairToPem({ chain, key: privateKey })
    expect(cert).toBe(chain.map((der) => new X509Certificate(der).toString()).join(''))
    expect(createPrivateKey(key).equals(privateKey)).toBe(true)
  })

  it.skipIf(!hasOpenssl())('is read by openssl, and openssl is read', () => {
    const { certificate } = ca('root')
    const options = { input: toPem(certificate, label), encoding: 'utf8' } as const
    const text = execFileSync('openssl', ['x509'], options)
    expect(parsePem(text, label, 'openssl')).toEqual([certificate])
  })

  it('refuses another label, also behind the right one', () => {
    const key = toPem(Buffer.of(1), 'PRIVATE KEY')
    const message = 'file.pem: a PRIVATE KEY block where only CERTIFICATE belongs'
    expect(refused(key)).toEqual({ code: 'ERR_CERTIFICATE', message })
    expect(refused(toPem(Buffer.of(1), label) + key)).toEqual({ code: 'ERR_CERTIFICATE', message })
  })

  it('refuses text outside of blocks', () => {
    const message = 'file.pem: text outside of PEM blocks'
    const good = toPem(Buffer.of(1), label)
    for (const text of [`subject=/CN=a\n${good}`, `${good}tail`, `${good}x${good}`, 'nonsense']) {
      expect(refused(text), text).toEqual({ code: 'ERR_CERTIFICATE', message })
    }
    expect(refused(good.replace('END CERTIFICATE', 'END CERTIFICATE '))?.message).toBe(message)
    expect(refused(good.slice(0, -10))?.message).toBe(message)
  })

  it('accepts white space between blocks', () => {
    const good = toPem(Buffer.of(1), label)
    expect(parsePem(`\n${good}\n\n${good}\n `, label, 'file.pem')).toHaveLength(2)
  })

  it('refuses base64 that Node would read leniently', () => {
    const message = 'file.pem: malformed base64'
    for (const body of ['AQ', 'AQ=', 'AR==', 'A', '=AQ=', 'AQ==AQ==']) {
      const text = `-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`
      expect(refused(text), body).toEqual({ code: 'ERR_CERTIFICATE', message })
    }
  })

  it('refuses nothing at all', () => {
    const message = 'file.pem: no CERTIFICATE block'
    expect(refused('')).toEqual({ code: 'ERR_CERTIFICATE', message })
    expect(refused(' \n')).toEqual({ code: 'ERR_CERTIFICATE', message })
  })

  it('writes an empty block for no bytes, which no certificate is', () => {
    expect(toPem(Buffer.alloc(0), label)).toBe(
      '-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n',
    )
  })
})

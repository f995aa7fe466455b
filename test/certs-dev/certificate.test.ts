import 'reflect-metadata'
import { generateKeyPairSync } from 'node:crypto'
import { X509Certificate as PeculiarCertificate } from '@peculiar/x509'
import { describe, expect, it } from 'vitest'
import { issueDev, makeDevCa } from '../../certs-dev/authority.ts'
import { algorithms, commonName, usualAlgorithmOf } from '../../certs-dev/certificate.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'

const times = { notBefore: Date.UTC(2030, 0, 1), notAfter: Date.UTC(2060, 0, 1) }
const root = makeDevCa({ name: 'root', ...times })

describe('certificates of the development CA', () => {
  it('are verified by @peculiar/x509', async () => {
    const { chain } = issueDev(root, { id: 'spiffe://td/a', ...times })
    const [own = Buffer.alloc(0)] = chain
    const it = new PeculiarCertificate(own)
    const date = new Date(times.notBefore + 1000)
    expect(await it.verify({ publicKey: new PeculiarCertificate(root.certificate), date })).toBe(
      true,
    )
    expect(it.issuer).toBe('O=castellan, CN=root')
    expect(it.notAfter.getTime()).toBe(times.notAfter)
  })

  it('have serials of 127 random bits', () => {
    const serials = Array.from({ length: 50 }, () => {
      const { chain } = issueDev(root, { id: 'spiffe://td/a', ...times })
      return String(parseCertificate(chain[0] ?? Buffer.alloc(0)).serial)
    })
    expect(new Set(serials).size).toBe(50)
    expect(serials.every((serial) => /^[4-7][0-9a-f]{31}$/.test(serial))).toBe(true)
  })

  it('take any field from the caller', () => {
    const { chain } = issueDev(root, {
      id: 'spiffe://td/a',
      ...times,
      serial: Buffer.of(7),
      issuer: commonName('other'),
      subject: commonName('own'),
      algorithm: algorithms.ecdsaSha512,
    })
    const it = parseCertificate(chain[0] ?? Buffer.alloc(0))
    expect(it.serial).toBe('07')
    expect(Buffer.from(it.issuer)).toEqual(commonName('other'))
    expect(Buffer.from(it.subject)).toEqual(commonName('own'))
    expect(Buffer.from(it.signatureAlgorithm)).toEqual(algorithms.ecdsaSha512.identifier)
  })

  it('know no algorithm for keys that cannot sign', () => {
    const { privateKey } = generateKeyPairSync('x25519')
    expect(() => usualAlgorithmOf(privateKey)).toThrow(new TypeError('no algorithm for x25519'))
  })
})

import { describe, expect, it } from 'vitest'
import {
  bundleOf,
  bundleOfDer,
  bundleOfPem,
  bundleSourceOf,
  bundleToDer,
  bundleToPem,
} from '../../spiffe/bundle.ts'
import { fingerprintOf } from '../../spiffe/certificate.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { refusalOf } from '../support/refusal.ts'
import { ca, leaf } from '../support/vectors.ts'

const td = parseTrustDomain('example.org')
const a = ca('a')
const b = ca('b')
const ders = [a.certificate, b.certificate]

describe('a bundle', () => {
  it('comes back from DER and from PEM', () => {
    const bundle = bundleOf(td, ders)
    expect(bundleToDer(bundle)).toEqual(Buffer.concat(ders))
    expect(bundleOfDer(td, bundleToDer(bundle))).toEqual(bundle)
    expect(bundleOfPem(td, bundleToPem(bundle), 'file')).toEqual(bundle)
    expect(bundle.authorities.map(({ der }) => der)).toEqual(ders)
  })

  it('may be empty, and then trusts nobody', () => {
    expect(bundleOfDer(td, Buffer.alloc(0))).toEqual({ trustDomain: td, authorities: [] })
  })

  it('refuses what is no CA, naming it by fingerprint', () => {
    const [own = Buffer.alloc(0)] = leaf(a)
    expect(refusalOf(() => bundleOf(td, [a.certificate, own]))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: `bundle of example.org: certificate ${fingerprintOf(own)} is no CA`,
    })
  })

  it('refuses bytes that are no certificates', () => {
    const trailing = Buffer.concat([a.certificate, Buffer.of(0x30)])
    expect(refusalOf(() => bundleOfDer(td, trailing))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: expect.stringContaining('malformed list of certificates: truncated'),
    })
    expect(refusalOf(() => bundleOfPem(td, 'hello', 'roots.pem'))).toEqual({
      code: 'ERR_CERTIFICATE',
      message: 'roots.pem: text outside of PEM blocks',
    })
  })
})

describe('a source of bundles', () => {
  it('knows each by the name of its trust domain and never merges two', () => {
    const first = bundleOf(td, [a.certificate])
    const second = bundleOf(parseTrustDomain('example.com'), [b.certificate])
    const source = bundleSourceOf(first, second)
    expect(source(td)).toBe(first)
    expect(source(second.trustDomain)).toBe(second)
    expect(source(parseTrustDomain('example.net'))).toBeUndefined()
    expect(source(parseTrustDomain('__proto__'))).toBeUndefined()
    expect(bundleSourceOf()(td)).toBeUndefined()
  })
})

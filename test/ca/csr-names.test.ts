import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { namesInCsr } from '../../ca/csr-names.ts'
import { dnsNamesProblem } from '../../ca/dns-names.ts'
import * as der from '../../spiffe/der-writer.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { refusalOf } from '../support/refusal.ts'

const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const csr = (...attributes: Uint8Array[]) => makeCsr(keys, { attributes })
const [uri, dns, email, ip] = [0x86, 0x82, 0x81, 0x87] as const

describe('the names in an administrator’s CSR', () => {
  it('are those of its SAN, in order', () => {
    const names = requestedNames([uri, 'spiffe://a.b/c'], [dns, 'x.example'], [dns, '*.y.example'])
    expect(namesInCsr(csr(names))).toEqual({
      uris: ['spiffe://a.b/c'],
      dnsNames: ['x.example', '*.y.example'],
    })
  })

  it('are none without a SAN', () => {
    const none = { uris: [], dnsNames: [] }
    expect(namesInCsr(csr())).toEqual(none)
    const challenge = der.sequence(
      der.oid('1.2.840.113549.1.9.7'),
      der.set(der.element(0x0c, Buffer.from('secret'))),
    )
    expect(namesInCsr(csr(challenge))).toEqual(none)
  })

  it.each([
    ['email', email, 'a@b.example'],
    ['ip', ip, '\x7f\0\0\x01'],
  ])('of kind %s cannot be minted', (kind, tag, text) => {
    const names = requestedNames([uri, 'spiffe://a.b/c'], [tag, text])
    expect(refusalOf(() => namesInCsr(csr(names)))).toEqual({
      code: 'ERR_CSR',
      message: `CSR refused: a name of kind ${kind} cannot be minted`,
    })
  })

  it('are DNS names when they say so', () => {
    for (const name of ['UPPER.example', 'a b', 'nul\0.example', 'a,DNS:b']) {
      expect(refusalOf(() => namesInCsr(csr(requestedNames([dns, name]))))).toEqual({
        code: 'ERR_CSR',
        message: `CSR refused: ${JSON.stringify(name)} is no DNS name in lower case`,
      })
    }
    const many = Array.from({ length: 65 }, () => [dns, 'a'] as const)
    expect(refusalOf(() => namesInCsr(csr(requestedNames(...many))))?.message).toBe(
      'CSR refused: more than 64 names',
    )
  })

  it('are refused with the CSR when it is malformed', () => {
    const empty = der.sequence(der.oid('1.2.840.113549.1.9.14'), der.set())
    for (const bad of [Buffer.of(), Buffer.from('junk'), csr(empty)]) {
      const found = refusalOf(() => namesInCsr(bad))
      expect(found?.code).toBe('ERR_CSR')
      expect(found?.message).toMatch(/^CSR refused: it is not well-formed DER/)
    }
  })
})

describe('a DNS name', () => {
  it('is what RFC 1123 says, in lower case, with at most a wildcard in front', () => {
    const good = ['a', 'a-b.c0', '*.a', 'x'.repeat(63), `${'x.'.repeat(126)}x`]
    for (const name of good) expect(dnsNamesProblem([name]), name).toBe(undefined)
    const bad = ['', '.', 'a.', '-a', 'a-', 'a_b', '*', '*a.b', 'a.*', `${'x.'.repeat(127)}x`]
    for (const name of bad) {
      expect(dnsNamesProblem([name]), name).toMatch(/ is no DNS name in lower case$/)
    }
  })
})

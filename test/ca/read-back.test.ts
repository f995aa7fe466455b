import { beforeAll, describe, expect, it } from 'vitest'
import type { Authority } from '../../ca/authorities/authorities.ts'
import type { Signing } from '../../ca/authorities/slot.ts'
import { leafTbs } from '../../ca/profile.ts'
import { readBack } from '../../ca/read-back.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { leafFields, signedLeaf, testSigner } from '../support/leaf.ts'
import { refusalOf } from '../support/refusal.ts'

const now = Date.UTC(2031, 4, 17, 12)
let signer: Signing<Authority>
beforeAll(async () => {
  signer = await testSigner(now)
})

describe('the second reader', () => {
  it('sees what the first one sees', () => {
    const changes = [{}, { dnsNames: ['a.example'] }, { notAfter: Date.UTC(2051, 1, 2, 3, 4, 5) }]
    for (const change of changes) {
      const fields = leafFields(signer, now, change)
      const leaf = signedLeaf(fields, signer)
      const first = parseCertificate(leaf)
      const second = readBack(leaf)
      expect(second.serial).toBe(first.serial)
      expect(second.uris).toEqual([fields.spiffeId])
      expect(second.notAfter).toBe(first.notAfter)
      expect(second.signature).toEqual(Buffer.from(first.signature))
      expect(second.tbs).toEqual(leafTbs(fields))
    }
  })

  it('drops the sign byte of a serial', () => {
    const serial = Buffer.concat([Buffer.of(0x90), Buffer.alloc(15, 7)])
    const leaf = signedLeaf(leafFields(signer, now, { serial }), signer)
    expect(readBack(leaf).serial).toBe(serial.toString('hex'))
  })

  it('refuses trailing bytes and every cut', () => {
    const leaf = signedLeaf(leafFields(signer, now), signer)
    const doesNot = /^a signed leaf does not read back \(byte \d+\)$/
    const longer = refusalOf(() => readBack(Buffer.concat([leaf, Buffer.of(0)])))
    expect(longer).toEqual({
      code: 'ERR_LINT',
      message: 'a signed leaf does not read back (byte 0)',
    })
    for (let at = 0; at < leaf.length; at++) {
      const found = refusalOf(() => readBack(leaf.subarray(0, at)))
      expect(found?.code).toBe('ERR_LINT')
      expect(found?.message).toMatch(doesNot)
    }
  })

  it('answers or refuses whatever byte is changed, and nothing else happens', () => {
    const leaf = signedLeaf(leafFields(signer, now), signer)
    for (const at of leaf.keys()) {
      for (const byte of [0, 0x7f, 0x80, 0x84, 0xff]) {
        const changed = Buffer.from(leaf)
        changed.writeUInt8(byte, at)
        try {
          readBack(changed)
        } catch (error) {
          expect(error).toBeInstanceOf(IdentityError)
        }
      }
    }
  })
})

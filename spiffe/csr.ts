// Certificate requests that ask for nothing but a certificate for their key (RFC 2986): the SPIFFE ID
// comes from a registration entry, never from here.
import { type KeyObject, sign } from 'node:crypto'
import * as der from './der-writer.ts'

const ecdsaWithSha256 = der.sequence(der.oid('1.2.840.10045.4.3.2'))

export interface KeyPair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

/** DER of a request with an empty subject and no attributes, signed by an EC key of `keys`. */
export function bareCsr({ publicKey, privateKey }: KeyPair): Buffer {
  const info = der.sequence(
    der.integer(Buffer.of(0)),
    der.sequence(),
    publicKey.export({ format: 'der', type: 'spki' }),
    der.element(0xa0),
  )
  return der.sequence(info, ecdsaWithSha256, der.bitString(sign('sha256', info, privateKey)))
}

// The identifier of a public key, which names X.509 authorities too.
import { hash } from 'node:crypto'
import { childrenOf, parseDer, wholeBitsOf } from './der.ts'

/** SHA-1 over the bits of the key: RFC 5280 §4.2.1.2 (1); an identifier, not a security measure. */
export function keyIdOf(spki: Uint8Array): Buffer {
  const [, bits] = childrenOf(parseDer(spki))
  return hash('sha1', wholeBitsOf(bits), 'buffer')
}

// Which signatures on certificates and CSRs are believed: one table, by AlgorithmIdentifier.
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { childrenOf, type Element, expectTag, parseDer, tags } from './der.ts'
import { IdentityError } from './errors.ts'
import { toPem } from './pem.ts'

interface Algorithm {
  readonly name: string
  /** null where the algorithm hashes by itself */
  readonly hash: string | null
  /** asymmetricKeyType of the keys that may make such a signature */
  readonly keyType: string
}

// The key is the whole AlgorithmIdentifier in hex, so that parameters are part of the match.
const algorithms: Readonly<Record<string, Algorithm>> = {
  '300a06082a8648ce3d040302': { name: 'ecdsa-with-SHA256', hash: 'sha256', keyType: 'ec' },
  '300a06082a8648ce3d040303': { name: 'ecdsa-with-SHA384', hash: 'sha384', keyType: 'ec' },
  '300a06082a8648ce3d040304': { name: 'ecdsa-with-SHA512', hash: 'sha512', keyType: 'ec' },
  '300d06092a864886f70d01010b0500': { name: 'sha256WithRSA', hash: 'sha256', keyType: 'rsa' },
  '300d06092a864886f70d01010c0500': { name: 'sha384WithRSA', hash: 'sha384', keyType: 'rsa' },
  '300d06092a864886f70d01010d0500': { name: 'sha512WithRSA', hash: 'sha512', keyType: 'rsa' },
  '300506032b6570': { name: 'Ed25519', hash: null, keyType: 'ed25519' },
}

const curves = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

/** Says why a key is not believed, whatever it signs; undefined when it may be used. */
export function keyProblem(key: KeyObject): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'rsa') {
    const bits = Number(details?.modulusLength)
    return bits >= 2048 && bits <= 8192 ? undefined : `an RSA key of ${bits} bits (2048 to 8192)`
  }
  if (type === 'ec') {
    // undefined for a curve that the key itself spells out
    const curve = String(details?.namedCurve)
    return curves.has(curve) ? undefined : `an EC key on ${curve}`
  }
  return type === 'ed25519' ? undefined : `a key of type ${type ?? 'unknown'}`
}

/** The key of a SubjectPublicKeyInfo. Throws ERR_CERTIFICATE for what is malformed or too weak. */
export function importPublicKey(spki: Uint8Array): KeyObject {
  let key: KeyObject
  let parameters: Element | undefined
  try {
    const [algorithm] = childrenOf(parseDer(spki), 2)
    parameters = childrenOf(expectTag(algorithm, tags.sequence), 2)[1]
    // the same bytes as PEM import in less than half the time that DER takes
    key = createPublicKey(toPem(spki, 'PUBLIC KEY'))
  } catch (cause) {
    throw new IdentityError('ERR_CERTIFICATE', 'unreadable public key', { cause })
  }
  // RFC 5480 §2.1.1: a curve has a name, its numbers are nobody's to choose
  const isSpelledOut = parameters?.tag === tags.sequence
  const problem = isSpelledOut ? 'a key that spells out its parameters' : keyProblem(key)
  if (problem !== undefined)
    throw new IdentityError('ERR_CERTIFICATE', `${problem} is not accepted`)
  return key
}

export interface Signed {
  readonly tbs: Uint8Array
  readonly signatureAlgorithm: Uint8Array
  readonly signature: Uint8Array
}

/** Says why `signed` does not carry a signature by `key`; undefined when it does. */
export function signatureProblem(signed: Signed, key: KeyObject): string | undefined {
  const algorithm = algorithms[Buffer.from(signed.signatureAlgorithm).toString('hex')]
  if (algorithm === undefined) return 'an unknown signature algorithm'
  if (key.asymmetricKeyType !== algorithm.keyType)
    return `a ${algorithm.name} signature by another kind of key`
  return verify(algorithm.hash, signed.tbs, key, signed.signature) ? undefined : 'a wrong signature'
}

// PKCS#10 requests (RFC 2986): a CSR gives a public key that its sender holds, and nothing else.
import { createPublicKey, type KeyObject } from 'node:crypto'
import {
  childrenOf,
  derError,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  parseDer,
  smallIntegerOf,
  tags,
  wholeBitsOf,
} from '../spiffe/der.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import { toPem } from '../spiffe/pem.ts'
import { signatureProblem } from '../spiffe/signature.ts'
import { createMint, type Minted } from './mint.ts'

interface Proven {
  /** SubjectPublicKeyInfo, DER */
  readonly publicKey: Uint8Array
}

/** A public key whose private half signed the request. */
export type ProvenCsr = Minted<'proven CSR', Proven>

const proofs = createMint<'proven CSR', Proven>('proven CSR')
export const spendProof = proofs.spend

const largest = 16 * 1024

/** Says why the bits of a SubjectPublicKeyInfo are not the key of a leaf. Throws ERR_DER. */
type KeyRule = (bits: Uint8Array) => string | undefined

// compressed points are legal, but each key has one form here: what is compared is bytes
const isPoint =
  (length: number): KeyRule =>
  (bits) =>
    bits.length === length && bits[0] === 0x04 ? undefined : 'a point that is not uncompressed'

const rsaKey: KeyRule = (bits) => {
  const [modulus, exponent, ...rest] = childrenOf(parseDer(bits), 3)
  if (rest.length > 0) return derError('a malformed RSA key', 0)
  const [first = 0, ...others] = integerOf(modulus)
  const size = others.length * 8 + (32 - Math.clz32(first))
  if (size < 2048 || size > 4096) return `an RSA key of ${size} bits (2048 to 4096)`
  const e = smallIntegerOf(exponent)
  return e > 2 ** 16 && e % 2 === 1 ? undefined : `an RSA key with exponent ${e}`
}

// By the whole AlgorithmIdentifier in hex: parameters are part of the match, a missing row is a refusal.
const leafKeys: Readonly<Record<string, KeyRule>> = {
  // id-ecPublicKey on prime256v1, on secp384r1; rsaEncryption
  '301306072a8648ce3d020106082a8648ce3d030107': isPoint(65),
  '301006072a8648ce3d020106052b81040022': isPoint(97),
  '300d06092a864886f70d0101010500': rsaKey,
}

function refuse(why: string, cause?: unknown): never {
  throw new IdentityError('ERR_CSR', `CSR refused: ${why}`, cause === undefined ? {} : { cause })
}

function parse(der: Uint8Array) {
  const [info, algorithm, signature, ...rest] = childrenOf(parseDer(der), 4)
  if (rest.length > 0) return derError('a malformed CSR', 0)
  // attributes are optional in what real clients send, and never read: names come from entries
  const [version, subject, publicKey, attributes, ...more] = childrenOf(
    expectTag(info, tags.sequence),
    5,
  )
  if (more.length > 0 || smallIntegerOf(version) !== 0) return derError('a malformed CSR', 0)
  expectTag(subject, tags.sequence)
  if (attributes !== undefined) childrenOf(expectTag(attributes, 0xa0))
  return {
    tbs: encodedOf(expectTag(info, tags.sequence)),
    spki: expectTag(publicKey, tags.sequence),
    signatureAlgorithm: encodedOf(expectTag(algorithm, tags.sequence)),
    signature: wholeBitsOf(signature),
  }
}

/** Reads the key's form before OpenSSL does: it would take encodings that no certificate may carry. */
function keyProblem(spki: Element): string | undefined {
  const [algorithm, bits, ...rest] = childrenOf(spki, 3)
  if (rest.length > 0) return derError('a malformed public key', spki.start)
  const rule = leafKeys[Buffer.from(encodedOf(expectTag(algorithm, tags.sequence))).toString('hex')]
  return rule === undefined
    ? 'a key of this kind (a leaf has P-256, P-384 or RSA)'
    : rule(wholeBitsOf(bits))
}

function importKey(spki: Uint8Array): KeyObject {
  try {
    // the same bytes as PEM import in less than half the time that DER takes
    return createPublicKey(toPem(spki, 'PUBLIC KEY'))
  } catch (cause) {
    return refuse('an unreadable public key', cause)
  }
}

function read(der: Uint8Array) {
  try {
    const csr = parse(der)
    return { ...csr, problem: keyProblem(csr.spki) }
  } catch (cause) {
    if (!hasCode(cause, 'ERR_DER')) throw cause
    return refuse('it is not well-formed DER', cause)
  }
}

/**
 * Verifies the self-signature and the kind of key. Throws ERR_CSR for malformed DER, trailing bytes, a
 * weak or unknown key, and a signature by another key (R18: SPIRE does not look at it).
 */
export function proveCsr(der: Uint8Array): ProvenCsr {
  if (der.length > largest) return refuse(`${der.length} bytes (at most ${largest})`)
  const { problem, spki, ...csr } = read(der)
  if (problem !== undefined) return refuse(`${problem} is not accepted`)
  const publicKey = new Uint8Array(encodedOf(spki))
  const wrong = signatureProblem(csr, importKey(publicKey))
  if (wrong !== undefined) return refuse(`${wrong} on the request itself`)
  return proofs.mint({ publicKey })
}

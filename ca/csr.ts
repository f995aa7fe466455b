// PKCS#10 requests (RFC 2986): a CSR gives a public key that its sender holds, and nothing else.
import { verify } from 'node:crypto'
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

type KeyKind = 'ec' | 'rsa'

interface KeyRule {
  readonly kind: KeyKind
  /** Says why the bits of a SubjectPublicKeyInfo are not the key of a leaf. Throws ERR_DER. */
  readonly problem: (bits: Uint8Array) => string | undefined
}

// compressed points are legal, but each key has one form here: what is compared is bytes
const point = (length: number): KeyRule => ({
  kind: 'ec',
  problem: (bits) =>
    bits.length === length && bits[0] === 0x04 ? undefined : 'a point that is not uncompressed',
})

const rsa: KeyRule = {
  kind: 'rsa',
  problem(bits) {
    const [modulus, exponent, ...rest] = childrenOf(parseDer(bits), 3)
    if (rest.length > 0) return derError('a malformed RSA key', 0)
    const [first = 0, ...others] = integerOf(modulus)
    const size = others.length * 8 + (32 - Math.clz32(first))
    if (size < 2048 || size > 4096) return `an RSA key of ${size} bits (2048 to 4096)`
    const e = smallIntegerOf(exponent)
    return e > 2 ** 16 && e % 2 === 1 ? undefined : `an RSA key with exponent ${e}`
  },
}

// Both tables by the whole AlgorithmIdentifier in hex: parameters are part of the match, and a missing
// row is a refusal.
const leafKeys: Readonly<Record<string, KeyRule>> = {
  // id-ecPublicKey on prime256v1, on secp384r1; rsaEncryption
  '301306072a8648ce3d020106082a8648ce3d030107': point(65),
  '301006072a8648ce3d020106052b81040022': point(97),
  '300d06092a864886f70d0101010500': rsa,
}

const signatures: Readonly<Record<string, { readonly kind: KeyKind; readonly hash: string }>> = {
  // ecdsa-with-SHA256, -384, -512; sha256WithRSAEncryption, 384, 512
  '300a06082a8648ce3d040302': { kind: 'ec', hash: 'sha256' },
  '300a06082a8648ce3d040303': { kind: 'ec', hash: 'sha384' },
  '300a06082a8648ce3d040304': { kind: 'ec', hash: 'sha512' },
  '300d06092a864886f70d01010b0500': { kind: 'rsa', hash: 'sha256' },
  '300d06092a864886f70d01010c0500': { kind: 'rsa', hash: 'sha384' },
  '300d06092a864886f70d01010d0500': { kind: 'rsa', hash: 'sha512' },
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
    signatureAlgorithm: algorithmOf(algorithm),
    signature: wholeBitsOf(signature),
  }
}

const algorithmOf = (element: Element | undefined) =>
  Buffer.from(encodedOf(expectTag(element, tags.sequence))).toString('hex')

/** Looks at the key's form before OpenSSL does, which takes encodings that no certificate may carry. */
function checkForm(spki: Element, signatureAlgorithm: string): { hash: string } {
  const [algorithm, bits, ...rest] = childrenOf(spki, 3)
  if (rest.length > 0) return derError('a malformed public key', spki.start)
  const rule = leafKeys[algorithmOf(algorithm)]
  if (rule === undefined) return refuse('a key that is neither P-256, P-384 nor RSA')
  const problem = rule.problem(wholeBitsOf(bits))
  if (problem !== undefined) return refuse(`${problem} is not accepted`)
  const signature = signatures[signatureAlgorithm]
  if (signature?.kind !== rule.kind) return refuse('a signature algorithm that is not of its key')
  return signature
}

function read(der: Uint8Array) {
  try {
    const csr = parse(der)
    return { ...csr, ...checkForm(csr.spki, csr.signatureAlgorithm) }
  } catch (cause) {
    if (!hasCode(cause, 'ERR_DER')) throw cause
    return refuse('it is not well-formed DER', cause)
  }
}

function isSignedBy(spki: Uint8Array, { hash, tbs, signature }: ReturnType<typeof read>): boolean {
  try {
    // straight from PEM: half the price of DER, and no key object is left behind
    return verify(hash, tbs, toPem(spki, 'PUBLIC KEY'), signature)
  } catch (cause) {
    return refuse('an unreadable public key', cause)
  }
}

/**
 * Verifies the self-signature and the kind of key. Throws ERR_CSR for malformed DER, trailing bytes, a
 * weak or unknown key, and a signature by another key (R18: SPIRE does not look at it).
 */
export function proveCsr(der: Uint8Array): ProvenCsr {
  if (der.length > largest) return refuse(`${der.length} bytes (at most ${largest})`)
  const csr = read(der)
  const publicKey = new Uint8Array(encodedOf(csr.spki))
  if (!isSignedBy(publicKey, csr)) return refuse('its signature is not by its own key')
  return proofs.mint({ publicKey })
}

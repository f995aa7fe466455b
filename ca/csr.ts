// PKCS#10 requests (RFC 2986): a CSR gives a public key that its sender holds, and nothing else.
import type { KeyObject } from 'node:crypto'
import {
  childrenOf,
  derError,
  encodedOf,
  expectTag,
  parseDer,
  smallIntegerOf,
  tags,
  wholeBitsOf,
} from '../spiffe/der.ts'
import { hasCode, IdentityError } from '../spiffe/errors.ts'
import { importPublicKey, signatureProblem } from '../spiffe/signature.ts'
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

/** Which keys a leaf may have; a missing row is a refusal. */
const leafKeys: Readonly<Record<string, (key: KeyObject) => boolean>> = {
  ec: (key) => ['prime256v1', 'secp384r1'].includes(key.asymmetricKeyDetails?.namedCurve ?? ''),
  rsa: (key) => {
    const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
    return bits >= 2048 && bits <= 4096
  },
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
    publicKey: encodedOf(expectTag(publicKey, tags.sequence)),
    signatureAlgorithm: encodedOf(expectTag(algorithm, tags.sequence)),
    signature: wholeBitsOf(signature),
  }
}

function importKey(spki: Uint8Array): KeyObject {
  try {
    return importPublicKey(spki)
  } catch (cause) {
    return refuse('its public key is not accepted', cause)
  }
}

/**
 * Verifies the self-signature and the kind of key. Throws ERR_CSR for malformed DER, trailing bytes, a
 * weak or unknown key, and a signature by another key (R18: SPIRE does not look at it).
 */
export function proveCsr(der: Uint8Array): ProvenCsr {
  if (der.length > largest) return refuse(`${der.length} bytes (at most ${largest})`)
  let csr: ReturnType<typeof parse>
  try {
    csr = parse(der)
  } catch (cause) {
    if (!hasCode(cause, 'ERR_DER')) throw cause
    return refuse('it is not well-formed DER', cause)
  }
  const key = importKey(csr.publicKey)
  const kind = key.asymmetricKeyType ?? 'unknown'
  if (!leafKeys[kind]?.(key))
    return refuse(`a key of kind ${kind} or of this size is not accepted for leaves`)
  const problem = signatureProblem(csr, key)
  if (problem !== undefined) return refuse(`${problem} on the request itself`)
  return proofs.mint({ publicKey: Uint8Array.from(csr.publicKey) })
}

// Secrets at rest: AES-256-GCM under a key that scrypt derives from a passphrase or a key file.
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes, scryptSync } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { IdentityError } from '../spiffe/errors.ts'
import { errnoOf } from './errno.ts'

/** What opens sealed files. `toJSON` keeps it out of logs. */
export interface SealingSecret {
  readonly bytes: Uint8Array
  toJSON(): string
}

const cost = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 } as const
const saltLength = 16
const nonceLength = 12
const tagLength = 16
const shortestPassphrase = 12

export function sealingSecret(bytes: Uint8Array): SealingSecret {
  return { bytes, toJSON: () => '[secret]' }
}

/**
 * Reads a passphrase (one final line break is dropped) or a key file. Throws ERR_SEALED when the file is
 * missing, readable by others, or too short to be a secret.
 */
export function readSecret(path: string): SealingSecret {
  let bytes: Buffer
  let mode: number
  try {
    bytes = readFileSync(path)
    mode = statSync(path).mode
  } catch (cause) {
    throw new IdentityError(
      'ERR_SEALED',
      `cannot read the secret file ${path} (${errnoOf(cause)})`,
      { cause },
    )
  }
  if ((mode & 0o077) !== 0) {
    throw new IdentityError('ERR_SEALED', `${path} can be read by others; chmod 600 it`)
  }
  const text = bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes
  if (text.length < shortestPassphrase) {
    throw new IdentityError('ERR_SEALED', `${path} holds fewer than ${shortestPassphrase} bytes`)
  }
  return sealingSecret(text)
}

/** How a key is made of a secret: passphrases are stretched, which takes a tenth of a second. */
export interface Derivation {
  readonly magic: Buffer
  keyOf(secret: SealingSecret, salt: Uint8Array): Uint8Array
}

const stretched: Derivation = {
  magic: Buffer.from('castellan-sealed-v1\n'),
  keyOf: ({ bytes }, salt) => scryptSync(bytes, salt, 32, cost),
}

/** For secrets that a program has drawn itself: there is nothing to guess, so nothing to stretch. */
export const drawnSecret: Derivation = {
  magic: Buffer.from('castellan-sealed-k1\n'),
  keyOf: ({ bytes }, salt) =>
    new Uint8Array(hkdfSync('sha256', bytes, salt, 'castellan sealed file', 32)),
}

/** `purpose` is bound to the result: a file sealed for one purpose does not open for another. */
export function seal(
  content: Uint8Array,
  secret: SealingSecret,
  purpose: string,
  { magic, keyOf }: Derivation = stretched,
): Buffer {
  const salt = randomBytes(saltLength)
  const nonce = randomBytes(nonceLength)
  const cipher = createCipheriv('aes-256-gcm', keyOf(secret, salt), nonce)
  cipher.setAAD(Buffer.concat([magic, Buffer.from(purpose)]))
  const sealed = Buffer.concat([cipher.update(content), cipher.final()])
  return Buffer.concat([magic, salt, nonce, cipher.getAuthTag(), sealed])
}

/** Throws ERR_SEALED for a wrong secret, a wrong purpose and a damaged file alike. */
export function unseal(
  bytes: Uint8Array,
  secret: SealingSecret,
  purpose: string,
  { magic, keyOf }: Derivation = stretched,
): Buffer {
  const file = Buffer.from(bytes)
  const fixed = magic.length + saltLength + nonceLength + tagLength
  if (file.length < fixed || !file.subarray(0, magic.length).equals(magic)) {
    throw new IdentityError('ERR_SEALED', 'not a sealed file of this version')
  }
  const salt = file.subarray(magic.length, magic.length + saltLength)
  const nonce = file.subarray(magic.length + saltLength, fixed - tagLength)
  const key = keyOf(secret, salt)
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagLength })
  decipher.setAAD(Buffer.concat([magic, Buffer.from(purpose)]))
  decipher.setAuthTag(file.subarray(fixed - tagLength, fixed))
  try {
    return Buffer.concat([decipher.update(file.subarray(fixed)), decipher.final()])
  } catch (cause) {
    throw new IdentityError(
      'ERR_SEALED',
      'the secret does not open this file, or the file is damaged',
      { cause },
    )
  }
}

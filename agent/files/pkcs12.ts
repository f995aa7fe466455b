// PKCS#12 (RFC 7292) as Java and OpenSSL 3 read it. node-forge writes RSA keys only, so the container is written
// here for any key; it derives the key of the checksum, and reads back what lies on the disk.
import { createHmac, createPrivateKey, hash, randomBytes } from 'node:crypto'
import forge from 'node-forge'
import {
  element,
  integer,
  octetString,
  oid,
  sequence,
  set as setOf,
} from '../../spiffe/der-writer.ts'

const oids = {
  data: '1.2.840.113549.1.7.1',
  shroudedKeyBag: '1.2.840.113549.1.12.10.1.2',
  certBag: '1.2.840.113549.1.12.10.1.3',
  x509Certificate: '1.2.840.113549.1.9.22.1',
  friendlyName: '1.2.840.113549.1.9.20',
  localKeyId: '1.2.840.113549.1.9.21',
  sha256: '2.16.840.1.101.3.4.2.1',
  /** Java takes no certificate for a root without it */
  trustedKeyUsage: '2.16.840.1.113894.746875.1.1',
  anyExtendedKeyUsage: '2.5.29.37.0',
} as const

const tags = { bmpString: 0x1e, explicit: 0xa0, null: 0x05 } as const
/** as OpenSSL has it: who can guess a password of a file on this machine has its key anyway */
const iterations = 2048

const explicit = (content: Uint8Array) => element(tags.explicit, content)
const attribute = (name: string, value: Uint8Array) => sequence(oid(name), setOf(value))
const contentInfo = (content: Uint8Array) =>
  sequence(oid(oids.data), explicit(octetString(content)))

function friendlyName(name: string): Buffer {
  return attribute(
    oids.friendlyName,
    element(tags.bmpString, Buffer.from(name, 'utf16le').swap16()),
  )
}

function safeBag(kind: string, value: Uint8Array, attributes: readonly Buffer[]): Buffer {
  // SET OF: in the order of their bytes
  const sorted = attributes.toSorted(Buffer.compare)
  const rest = sorted.length === 0 ? [] : [setOf(...sorted)]
  return sequence(oid(kind), explicit(value), ...rest)
}

function certBag(der: Uint8Array, attributes: readonly Buffer[] = []): Buffer {
  const value = sequence(oid(oids.x509Certificate), explicit(octetString(der)))
  return safeBag(oids.certBag, value, attributes)
}

const binary = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1')

/** The checksum over everything, under the password (RFC 7292 §4, appendix B). */
function macData(authSafe: Buffer, password: string): Buffer {
  const salt = randomBytes(16)
  const derived = forge.pkcs12.generateKey(
    password,
    forge.util.createBuffer(binary(salt)),
    3,
    iterations,
    32,
    forge.md.sha256.create(),
  )
  const key = Buffer.from(derived.getBytes(), 'latin1')
  const digest = createHmac('sha256', key).update(authSafe).digest()
  const algorithm = sequence(oid(oids.sha256), element(tags.null))
  return sequence(
    sequence(algorithm, octetString(digest)),
    octetString(salt),
    integer(Buffer.of(iterations >> 8, iterations & 0xff)),
  )
}

/** Version 3, checked by a password. */
function container(parts: readonly Buffer[], password: string): Buffer {
  const authSafe = sequence(...parts.map(contentInfo))
  return sequence(integer(Buffer.of(3)), contentInfo(authSafe), macData(authSafe, password))
}

export interface Pkcs12 {
  make(): Buffer
  /** Whether bytes are a file of that content and password; salts differ from one to the next. */
  isMadeOfTheSame(bytes: Buffer): boolean
}

/** `certificates` are never encrypted, so that they can be found again. */
function pkcs12Of(certificates: Buffer, key: () => readonly Buffer[], password: string): Pkcs12 {
  return {
    make: () => container([certificates, ...key()], password),
    isMadeOfTheSame(bytes) {
      try {
        forge.pkcs12.pkcs12FromAsn1(forge.asn1.fromDer(binary(bytes)), true, password)
        return bytes.includes(certificates)
      } catch {
        // another password, or not such a file
        return false
      }
    },
  }
}

export interface KeyEntry {
  /** DER, leaf first */
  readonly chain: readonly Uint8Array[]
  /** PKCS#8 DER of any kind of key */
  readonly key: Uint8Array
  readonly alias: string
}

/** A key with its chain: AES-256 under PBKDF2 with SHA-256, as OpenSSL 3 has it. */
export function keyStore({ chain, key, alias }: KeyEntry, password: string): Pkcs12 {
  const [leaf = new Uint8Array(), ...rest] = chain
  const id = attribute(oids.localKeyId, octetString(hash('sha1', leaf, 'buffer')))
  const attributes = [id, friendlyName(alias)]
  const bags = [certBag(leaf, attributes), ...rest.map((der) => certBag(der))]

  function shrouded(): Buffer {
    return createPrivateKey({ key: Buffer.from(key), format: 'der', type: 'pkcs8' }).export({
      format: 'der',
      type: 'pkcs8',
      cipher: 'aes-256-cbc',
      passphrase: password,
    })
  }
  const keyPart = () => [sequence(safeBag(oids.shroudedKeyBag, shrouded(), attributes))]
  return pkcs12Of(sequence(...bags), keyPart, password)
}

export interface Root {
  readonly der: Uint8Array
  readonly alias: string
}

/** Certificates that are trusted, and no key. */
export function trustStore(roots: readonly Root[], password: string): Pkcs12 {
  const trusted = attribute(oids.trustedKeyUsage, oid(oids.anyExtendedKeyUsage))
  const bags = roots.map(({ der, alias }) => certBag(der, [friendlyName(alias), trusted]))
  return pkcs12Of(sequence(...bags), () => [], password)
}

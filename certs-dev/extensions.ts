// The extensions of development certificates, each a whole Extension (RFC 5280 §4.2).
import { createHash, type KeyObject } from 'node:crypto'
import { extensionOids } from '../spiffe/certificate.ts'
import { tags } from '../spiffe/der.ts'
import {
  element,
  extension,
  integer,
  namedBits,
  octetString,
  oid,
  sequence,
} from '../spiffe/der-writer.ts'

const text = (tag: number) => (value: string) => element(tag, Buffer.from(value, 'latin1'))

/** Writers of a GeneralName. */
export const generalName = {
  email: text(0x81),
  dns: text(0x82),
  directory: (name: Uint8Array) => element(0xa4, name),
  uri: text(0x86),
  ip: (...bytes: readonly number[]) => element(0x87, Buffer.from(bytes)),
} as const

interface Criticality {
  readonly critical: boolean
}

const critical: Criticality = { critical: true }
const notCritical: Criticality = { critical: false }

export function basicConstraints(pathLength?: number): Buffer {
  const most = pathLength === undefined ? [] : [integer(Buffer.of(pathLength))]
  const isCa = element(tags.boolean, Buffer.of(0xff))
  return extension(extensionOids.basicConstraints, sequence(isCa, ...most), critical)
}

/** What a leaf may say: not a CA. */
export const noAuthority = (): Buffer =>
  extension(extensionOids.basicConstraints, sequence(), critical)

export function keyUsage(bits: readonly number[], options: Criticality = critical): Buffer {
  return extension(extensionOids.keyUsage, namedBits(bits), options)
}

export function extendedKeyUsage(
  purposes: readonly string[],
  options: Criticality = notCritical,
): Buffer {
  return extension(extensionOids.extendedKeyUsage, sequence(...purposes.map(oid)), options)
}

export function subjectAltName(
  names: readonly Uint8Array[],
  options: Criticality = notCritical,
): Buffer {
  return extension(extensionOids.subjectAltName, sequence(...names), options)
}

export interface Subtrees {
  readonly permitted?: readonly Uint8Array[]
  readonly excluded?: readonly Uint8Array[]
}

export function nameConstraints(
  { permitted = [], excluded = [] }: Subtrees,
  options: Criticality = critical,
): Buffer {
  const part = (tag: number, bases: readonly Uint8Array[]) =>
    bases.length === 0 ? [] : [element(tag, ...bases.map((base) => sequence(base)))]
  const value = sequence(...part(0xa0, permitted), ...part(0xa1, excluded))
  return extension(extensionOids.nameConstraints, value, options)
}

/** 20 bytes of the hash of the whole SubjectPublicKeyInfo (RFC 7093 §2, 4). */
function keyIdentifierOf(key: KeyObject): Buffer {
  const spki = key.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest().subarray(0, 20)
}

export const subjectKeyIdentifier = (key: KeyObject): Buffer =>
  extension(extensionOids.subjectKeyIdentifier, octetString(keyIdentifierOf(key)), notCritical)

export const authorityKeyIdentifier = (key: KeyObject): Buffer =>
  extension(
    extensionOids.authorityKeyIdentifier,
    sequence(element(0x80, keyIdentifierOf(key))),
    notCritical,
  )

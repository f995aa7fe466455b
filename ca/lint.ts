// Reads the to-be-signed bytes of a leaf as a stranger would and compares them with what was granted.
// What fails here was our own mistake, and is never signed.
import { extensionOids, keyUsages } from '../spiffe/certificate.ts'
import {
  childrenOf,
  contentOf,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  namedBitsOf,
  oidOf,
  parseDer,
  tags,
  timeOf,
} from '../spiffe/der.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { type GeneralName, generalNamesOf } from '../spiffe/general-name.ts'
import { clientAuth, serverAuth } from '../spiffe/svid.ts'
import type { LeafFields } from './profile.ts'

interface Read {
  readonly serial: Uint8Array
  readonly issuer: Uint8Array
  readonly notBefore: number
  readonly notAfter: number
  readonly subject: Element
  readonly publicKey: Uint8Array
  readonly extensions: ReadonlyMap<string, { critical: boolean; value: Uint8Array }>
}

function extensionsOf(wrapper: Element | undefined): Read['extensions'] {
  const [list] = childrenOf(expectTag(wrapper, 0xa3), 1)
  return new Map(
    childrenOf(expectTag(list, tags.sequence)).map((child) => {
      const parts = childrenOf(child, 3)
      const value = contentOf(expectTag(parts[parts.length - 1], tags.octetString))
      return [oidOf(parts[0]), { critical: parts.length === 3, value }]
    }),
  )
}

function read(tbs: Uint8Array): Read {
  const [, serial, , issuer, validity, subject, publicKey, extensions] = childrenOf(
    parseDer(tbs),
    8,
  )
  const [notBefore, notAfter] = childrenOf(expectTag(validity, tags.sequence), 2)
  return {
    serial: integerOf(serial),
    issuer: encodedOf(expectTag(issuer, tags.sequence)),
    notBefore: timeOf(notBefore),
    notAfter: timeOf(notAfter),
    subject: expectTag(subject, tags.sequence),
    publicKey: encodedOf(expectTag(publicKey, tags.sequence)),
    extensions: extensionsOf(extensions),
  }
}

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0
const seconds = (ms: number) => Math.floor(ms / 1000)

const expectedExtensions = [
  extensionOids.keyUsage,
  extensionOids.extendedKeyUsage,
  extensionOids.basicConstraints,
  extensionOids.subjectKeyIdentifier,
  extensionOids.authorityKeyIdentifier,
  extensionOids.subjectAltName,
].sort()

function namesIn(it: Read): readonly GeneralName[] {
  const san = it.extensions.get(extensionOids.subjectAltName)
  return san === undefined ? [] : generalNamesOf(parseDer(san.value))
}

function extensionValue(it: Read, id: string): Uint8Array {
  return it.extensions.get(id)?.value ?? new Uint8Array()
}

/** Each rule by name; true means that it holds. */
const rules: Readonly<Record<string, (it: Read, granted: LeafFields) => boolean>> = {
  'serial as reserved, positive, at least 64 bits': (it, { serial }) =>
    it.serial.length >= 8 && (it.serial[0] ?? 0x80) < 0x80 && same(it.serial, serial),
  'issuer of the active authority': (it, { issuer }) => same(it.issuer, issuer),
  'validity as granted, not reversed': (it, { notBefore, notAfter }) =>
    seconds(it.notBefore) === seconds(notBefore) &&
    seconds(it.notAfter) === seconds(notAfter) &&
    it.notBefore < it.notAfter,
  'empty subject': ({ subject }) => subject.end === subject.body,
  'public key as proven': (it, { publicKey }) => same(it.publicKey, publicKey),
  'the extensions of a leaf and no other': ({ extensions }) =>
    [...extensions.keys()].sort().join() === expectedExtensions.join(),
  'critical key usage digitalSignature alone': (it) => {
    const usage = it.extensions.get(extensionOids.keyUsage)
    const bits = usage && namedBitsOf(parseDer(usage.value, tags.bitString))
    return usage?.critical === true && bits === 1 << keyUsages.digitalSignature
  },
  'server and client purpose': (it) =>
    childrenOf(parseDer(extensionValue(it, extensionOids.extendedKeyUsage)))
      .map(oidOf)
      .join() === [serverAuth, clientAuth].join(),
  'no CA': (it) =>
    childrenOf(parseDer(extensionValue(it, extensionOids.basicConstraints))).length === 0,
  'critical SAN with the granted names and no other': (it, granted) => {
    const names = namesIn(it).map((name) =>
      name.kind === 'uri' || name.kind === 'dns' ? `${name.kind}:${name.value}` : name.kind,
    )
    const expected = [`uri:${granted.spiffeId}`, ...granted.dnsNames.map((name) => `dns:${name}`)]
    return (
      it.extensions.get(extensionOids.subjectAltName)?.critical === true &&
      names.join() === expected.join()
    )
  },
}

/** Throws ERR_LINT naming the broken rule. */
export function lintLeaf(tbs: Uint8Array, granted: LeafFields): void {
  const it = read(tbs)
  for (const [name, holds] of Object.entries(rules)) {
    if (!holds(it, granted)) {
      throw new IdentityError(
        'ERR_LINT',
        `a leaf for ${granted.spiffeId} was not signed: broken rule "${name}"`,
      )
    }
  }
}

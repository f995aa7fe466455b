// X.509 certificates (RFC 5280 §4.1) as the fields that validation needs, read by our strict DER reader.
import { createHash } from 'node:crypto'
import {
  booleanOf,
  childrenOf,
  contentOf,
  derError,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  namedBitsOf,
  oidOf,
  onlyChildOf,
  parseDer,
  readElement,
  smallIntegerOf,
  tags,
  timeOf,
  wholeBitsOf,
} from './der.ts'
import { IdentityError } from './errors.ts'
import { distinguishedNameOf, type GeneralName, generalNamesOf } from './general-name.ts'
import { type NameConstraints, nameConstraintsOf } from './name-constraints.ts'

declare const brand: unique symbol

/** A certificate's serial number: lower-case hex of even length, without sign byte. */
export type Serial = string & { readonly [brand]: 'Serial' }

export const extensionOids = {
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const

/** Bit positions of keyUsage (RFC 5280 §4.2.1.3). */
export const keyUsages = { digitalSignature: 0, keyCertSign: 5, cRLSign: 6 } as const

export interface Extension {
  readonly critical: boolean
  readonly value: Uint8Array
}

export interface Certificate {
  readonly der: Uint8Array
  /** the bytes that are signed */
  readonly tbs: Uint8Array
  readonly serial: Serial
  /** encoded Names, compared byte by byte */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  readonly hasSubject: boolean
  /** milliseconds since the epoch, both inclusive */
  readonly notBefore: number
  readonly notAfter: number
  /** SubjectPublicKeyInfo, DER */
  readonly publicKey: Uint8Array
  readonly signatureAlgorithm: Uint8Array
  readonly signature: Uint8Array
  /** by object identifier */
  readonly extensions: ReadonlyMap<string, Extension>
  readonly names: readonly GeneralName[]
  readonly isCa: boolean
  readonly pathLength: number | undefined
  /** bit mask by `keyUsages`; undefined when the extension is absent */
  readonly keyUsage: number | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  readonly nameConstraints: NameConstraints | undefined
}

/** A serial from the content bytes of a DER INTEGER or its magnitude. */
export function serialOf(bytes: Uint8Array): Serial {
  const hex = Buffer.from(bytes)
    .toString('hex')
    .replace(/^(00)+(?=..)/, '')
  return hex as Serial
}

/** A serial as people and messages write it; undefined when it is none. */
export function serialFromHex(text: string): Serial | undefined {
  return /^(?:[0-9a-f]{2}){1,20}$/.test(text) ? serialOf(Buffer.from(text, 'hex')) : undefined
}

function extensionOf(element: Element): [string, Extension] {
  const [id, second, third] = childrenOf(expectTag(element, tags.sequence), 3)
  const critical = third !== undefined && second !== undefined && booleanOf(second)
  if (third !== undefined && !critical) {
    return derError('a FALSE that has to be left out', element.start)
  }
  return [oidOf(id), { critical, value: contentOf(expectTag(third ?? second, tags.octetString)) }]
}

function extensionsOf(wrapper: Element | undefined): Map<string, Extension> {
  const found = new Map<string, Extension>()
  if (wrapper === undefined) return found
  for (const child of childrenOf(expectTag(onlyChildOf(wrapper), tags.sequence))) {
    const [name, extension] = extensionOf(child)
    if (found.has(name)) return derError(`a second extension ${name}`, child.start)
    found.set(name, extension)
  }
  if (found.size === 0) return derError('an empty list of extensions', wrapper.start)
  return found
}

function inside(
  extension: Extension | undefined,
  tag: number = tags.sequence,
): Element | undefined {
  return extension && parseDer(extension.value, tag)
}

function basicConstraintsOf(value: Element | undefined): { isCa: boolean; pathLength?: number } {
  if (value === undefined) return { isCa: false }
  const [first, second] = childrenOf(value, 2)
  if (first === undefined) return { isCa: false }
  if (first.tag !== tags.boolean || !booleanOf(first)) {
    return derError(
      'basic constraints with a path length but no CA, or an explicit FALSE',
      value.start,
    )
  }
  return second === undefined ? { isCa: true } : { isCa: true, pathLength: smallIntegerOf(second) }
}

interface TbsFields {
  readonly serial: Element
  readonly algorithm: Element
  readonly issuer: Uint8Array
  readonly validity: Element
  readonly subject: Uint8Array
  readonly publicKey: Element
  readonly extensions: Element | undefined
}

// Version 3 is demanded: what has no extensions cannot be an SVID nor sign one.
function tbsFieldsOf(tbs: Element): TbsFields {
  const [version, serial, algorithm, issuer, validity, subject, publicKey, ...rest] = childrenOf(
    tbs,
    10,
  )
  if (version?.tag !== 0xa0 || smallIntegerOf(onlyChildOf(version)) !== 2) {
    return derError('no version 3 certificate', tbs.start)
  }
  const optional = rest.map((element) => element.tag).join()
  const extensions = rest.find((element) => element.tag === 0xa3)
  if (!['', '163', '129,163', '130,163', '129,130,163'].includes(optional)) {
    return derError('unknown or misplaced fields', tbs.start)
  }
  return {
    serial: expectTag(serial, tags.integer),
    algorithm: expectTag(algorithm, tags.sequence),
    issuer: distinguishedNameOf(issuer),
    validity: expectTag(validity, tags.sequence),
    subject: distinguishedNameOf(subject),
    publicKey: expectTag(publicKey, tags.sequence),
    extensions,
  }
}

function validityOf(validity: Element): { notBefore: number; notAfter: number } {
  const [notBefore, notAfter, ...rest] = childrenOf(validity, 3)
  if (rest.length > 0) return derError('a malformed validity', validity.start)
  return { notBefore: timeOf(notBefore), notAfter: timeOf(notAfter) }
}

const emptyName = Buffer.of(tags.sequence, 0)

// RFC 5280 §4.1.2.2. A negative one would share its Serial with a positive one.
function positiveSerialOf(element: Element): Serial {
  const content = integerOf(element)
  const serial = serialOf(content)
  const isNegative = content.some((byte, i) => i === 0 && byte >= 0x80)
  if (isNegative || serial.length > 40)
    return derError('a serial that is negative or longer than 20 bytes', element.start)
  return serial
}

function read(der: Uint8Array): Certificate {
  const [tbs, algorithm, signature, ...rest] = childrenOf(parseDer(der), 4)
  if (rest.length > 0) return derError('a malformed certificate', 0)
  const fields = tbsFieldsOf(expectTag(tbs, tags.sequence))
  const outer = encodedOf(expectTag(algorithm, tags.sequence))
  if (!Buffer.from(outer).equals(encodedOf(fields.algorithm))) {
    return derError('two different signature algorithms', 0)
  }
  const extensions = extensionsOf(fields.extensions)
  const names = inside(extensions.get(extensionOids.subjectAltName))
  const usage = inside(extensions.get(extensionOids.keyUsage), tags.bitString)
  const purposes = inside(extensions.get(extensionOids.extendedKeyUsage))
  const constraints = inside(extensions.get(extensionOids.nameConstraints))
  const basic = basicConstraintsOf(inside(extensions.get(extensionOids.basicConstraints)))
  return {
    der,
    tbs: encodedOf(expectTag(tbs, tags.sequence)),
    serial: positiveSerialOf(fields.serial),
    issuer: fields.issuer,
    subject: fields.subject,
    hasSubject: fields.subject.length > emptyName.length,
    ...validityOf(fields.validity),
    publicKey: encodedOf(fields.publicKey),
    signatureAlgorithm: outer,
    signature: wholeBitsOf(signature),
    extensions,
    names: names === undefined ? [] : generalNamesOf(names),
    isCa: basic.isCa,
    pathLength: basic.pathLength,
    keyUsage: usage && namedBitsOf(usage),
    extendedKeyUsage: purposes && childrenOf(purposes).map(oidOf),
    nameConstraints: constraints && nameConstraintsOf(constraints),
  }
}

const largestCertificate = 64 * 1024

/** Reads one DER certificate, version 3 only, nothing behind it. Throws ERR_CERTIFICATE. */
export function parseCertificate(der: Uint8Array): Certificate {
  if (der.length > largestCertificate) {
    throw new IdentityError(
      'ERR_CERTIFICATE',
      `a certificate of ${der.length} bytes (at most ${largestCertificate})`,
    )
  }
  try {
    return read(der)
  } catch (cause) {
    throw new IdentityError('ERR_CERTIFICATE', 'malformed certificate', { cause })
  }
}

/** Splits concatenated DER, as the Workload API carries chains and bundles. Throws ERR_CERTIFICATE. */
export function splitDer(bytes: Uint8Array, most = 64): Uint8Array[] {
  const parts: Uint8Array[] = []
  try {
    for (let at = 0; at < bytes.length; ) {
      if (parts.length === most) derError(`more than ${most} certificates`, at)
      const part = expectTag(readElement(bytes, at, bytes.length), tags.sequence)
      parts.push(encodedOf(part))
      at = part.end
    }
  } catch (cause) {
    throw new IdentityError('ERR_CERTIFICATE', 'malformed list of certificates', { cause })
  }
  return parts
}

export function hasUsage(certificate: Certificate, bit: number): boolean {
  return ((certificate.keyUsage ?? 0) & (1 << bit)) !== 0
}

/** Lower-case hex of the SHA-256 of the whole certificate. */
export function fingerprintOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex')
}

// Reads the to-be-signed bytes of a leaf as a stranger would and compares them with what was granted.
// What fails here was our own mistake, and is never signed.
import {
  childrenOf,
  contentOf,
  derError,
  type Element,
  encodedOf,
  expectTag,
  integerOf,
  parseDer,
  tags,
} from '../spiffe/der.ts'
import { IdentityError } from '../spiffe/errors.ts'
import { generalNamesOf } from '../spiffe/general-name.ts'
import type { LeafFields } from './profile.ts'

interface Extension {
  readonly id: string
  readonly isCritical: boolean
  readonly value: Uint8Array
}

interface Read {
  readonly version: Element
  readonly serial: Uint8Array
  readonly algorithm: Element
  readonly issuer: Element
  readonly notBefore: Element
  readonly notAfter: Element
  readonly subject: Element
  readonly publicKey: Element
  readonly extensions: readonly Extension[]
}

const hex = (bytes: Uint8Array) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0

function extensionOf(child: Element): Extension {
  const parts = childrenOf(expectTag(child, tags.sequence), 3)
  return {
    id: hex(contentOf(expectTag(parts[0], tags.oid))),
    isCritical:
      parts.length === 3 && hex(encodedOf(expectTag(parts[1], tags.boolean))) === '0101ff',
    value: contentOf(expectTag(parts.at(-1), tags.octetString)),
  }
}

function read(tbs: Uint8Array): Read {
  const parts = childrenOf(parseDer(tbs), 8)
  const [version, serial, algorithm, issuer, validity, subject, publicKey, extensions] = parts
  const [notBefore, notAfter] = childrenOf(expectTag(validity, tags.sequence), 2)
  const [list] = childrenOf(expectTag(extensions, 0xa3), 1)
  return {
    version: expectTag(version, 0xa0),
    serial: integerOf(serial),
    algorithm: expectTag(algorithm, tags.sequence),
    issuer: expectTag(issuer, tags.sequence),
    notBefore: notBefore ?? derError('no notBefore', 0),
    notAfter: notAfter ?? derError('no notAfter', 0),
    subject: expectTag(subject, tags.sequence),
    publicKey: expectTag(publicKey, tags.sequence),
    extensions: childrenOf(expectTag(list, tags.sequence)).map(extensionOf),
  }
}

// Encodings in hex, written down from the standards and not made by the writer that they judge.
const version3 = 'a003020102'
const ecdsaWithSha256 = '300a06082a8648ce3d040302'
const digitalSignatureAlone = '03020780'
const serverAuthAndClientAuth = '301406082b0601050507030106082b06010505070302'
const emptySequence = '3000'

const ids = {
  subjectKeyIdentifier: '551d0e',
  keyUsage: '551d0f',
  subjectAltName: '551d11',
  basicConstraints: '551d13',
  authorityKeyIdentifier: '551d23',
  extendedKeyUsage: '551d25',
} as const
const expectedIds = Object.values(ids).sort().join()

const extensionIn = ({ extensions }: Read, id: string) => extensions.find((it) => it.id === id)

function holdsValue(it: Read, id: string, value: string): boolean {
  const found = extensionIn(it, id)
  return found !== undefined && hex(found.value) === value
}

/** The digits that RFC 5280 §4.1.2.5 demands for an instant, with the tag of their form. */
function timeText(ms: number): string {
  const iso = new Date(ms).toISOString()
  const isUtc = iso < '2050'
  const year = iso.slice(isUtc ? 2 : 0, 4)
  const rest = `${iso.slice(5, 7)}${iso.slice(8, 10)}${iso.slice(11, 13)}${iso.slice(14, 16)}`
  return `${isUtc ? tags.utcTime : tags.generalizedTime}:${year}${rest}${iso.slice(17, 19)}Z`
}

function isAt(time: Element, ms: number): boolean {
  const { bytes, body, end } = time
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString(
    'latin1',
    body,
    end,
  )
  return `${time.tag}:${text}` === timeText(ms)
}

type Rule = (it: Read, granted: LeafFields) => boolean

/** Each rule by name; true means that it holds. */
const rules: Readonly<Record<string, Rule>> = {
  'version 3, signed by the algorithm of the profile': ({ version, algorithm }) =>
    hex(encodedOf(version)) === version3 && hex(encodedOf(algorithm)) === ecdsaWithSha256,
  'serial as reserved, positive, at least 64 bits': (it, { serial }) =>
    it.serial.length >= 8 && (it.serial[0] ?? 0x80) < 0x80 && same(it.serial, serial),
  'issuer of the active authority': (it, { issuer }) => same(encodedOf(it.issuer), issuer),
  'validity as granted, not reversed': (it, { notBefore, notAfter }) =>
    notBefore < notAfter && isAt(it.notBefore, notBefore) && isAt(it.notAfter, notAfter),
  'empty subject': ({ subject }) => subject.end === subject.body,
  'public key as proven': (it, { publicKey }) => same(encodedOf(it.publicKey), publicKey),
  'the extensions of a leaf and no other': ({ extensions }) =>
    extensions
      .map(({ id }) => id)
      .sort()
      .join() === expectedIds,
  'critical key usage digitalSignature alone': (it) =>
    extensionIn(it, ids.keyUsage)?.isCritical === true &&
    holdsValue(it, ids.keyUsage, digitalSignatureAlone),
  'server and client purpose': (it) =>
    holdsValue(it, ids.extendedKeyUsage, serverAuthAndClientAuth),
  'no CA': (it) => holdsValue(it, ids.basicConstraints, emptySequence),
  'key identifiers as granted': (it, { subjectKeyId, authorityKeyId }) =>
    holdsValue(it, ids.subjectKeyIdentifier, `0414${hex(subjectKeyId)}`) &&
    holdsValue(it, ids.authorityKeyIdentifier, `30168014${hex(authorityKeyId)}`),
  'critical SAN with the granted names and no other': (it, { spiffeId, dnsNames }) => {
    const san = extensionIn(it, ids.subjectAltName)
    if (san === undefined || !san.isCritical) return false
    const [id, ...others] = generalNamesOf(parseDer(san.value))
    return (
      id?.kind === 'uri' &&
      id.value === spiffeId &&
      others.length === dnsNames.length &&
      others.every((name, i) => name.kind === 'dns' && name.value === dnsNames[i])
    )
  },
}
const rulesInOrder = Object.entries(rules)

function brokenRule(tbs: Uint8Array, granted: LeafFields): string | undefined {
  const it = read(tbs)
  return rulesInOrder.find(([, holds]) => !holds(it, granted))?.[0]
}

/** Throws ERR_LINT naming the broken rule. */
export function lintLeaf(tbs: Uint8Array, granted: LeafFields): void {
  const refuse = (rule: string, cause?: unknown) => {
    const message = `a leaf for ${granted.spiffeId} was not signed: broken rule "${rule}"`
    throw new IdentityError('ERR_LINT', message, { cause })
  }
  let rule: string | undefined
  try {
    rule = brokenRule(tbs, granted)
  } catch (cause) {
    refuse('well-formed DER', cause)
  }
  if (rule !== undefined) refuse(rule)
}

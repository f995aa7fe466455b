// Reads the to-be-signed bytes of a leaf as a stranger would and compares them with what was granted.
// What fails here was our own mistake, and is never signed.
import {
  booleanOf,
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
  /** content of the object identifier */
  readonly id: Uint8Array
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

function same(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

function extensionOf(child: Element): Extension {
  const parts = childrenOf(expectTag(child, tags.sequence), 3)
  const [id, middle, last = middle] = parts
  return {
    id: contentOf(expectTag(id, tags.oid)),
    isCritical: parts.length === 3 && booleanOf(expectTag(middle, tags.boolean)),
    value: contentOf(expectTag(last, tags.octetString)),
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

// Encodings written down from the standards, and not made by the writer that they judge.
const bytes = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))
const version3 = bytes('a003020102')
const ecdsaWithSha256 = bytes('300a06082a8648ce3d040302')
const digitalSignatureAlone = bytes('03020780')
const serverAuthAndClientAuth = bytes('301406082b0601050507030106082b06010505070302')
const emptySequence = bytes('3000')
const keyIdHead = bytes('0414')
const authorityKeyIdHead = bytes('30168014')

const ids = {
  keyUsage: bytes('551d0f'),
  extendedKeyUsage: bytes('551d25'),
  basicConstraints: bytes('551d13'),
  subjectKeyIdentifier: bytes('551d0e'),
  authorityKeyIdentifier: bytes('551d23'),
  subjectAltName: bytes('551d11'),
} as const
const expectedIds = Object.values(ids)

const extensionIn = ({ extensions }: Read, wanted: Uint8Array) =>
  extensions.find(({ id }) => same(id, wanted))

/** Whether that extension's value is exactly `head` followed by `rest`. */
function holds(
  it: Read,
  id: Uint8Array,
  head: Uint8Array,
  rest: Uint8Array = new Uint8Array(),
): boolean {
  const value = extensionIn(it, id)?.value ?? new Uint8Array()
  const cut = head.length
  return same(value.subarray(0, cut), head) && same(value.subarray(cut), rest)
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
  return `${time.tag}:${String.fromCharCode(...contentOf(time))}` === timeText(ms)
}

type Rule = (it: Read, granted: LeafFields) => boolean

/** Each rule by name; true means that it holds. */
const rules: Readonly<Record<string, Rule>> = {
  'version 3, signed by the algorithm of the profile': ({ version, algorithm }) =>
    same(encodedOf(version), version3) && same(encodedOf(algorithm), ecdsaWithSha256),
  'serial as reserved, positive, at least 64 bits': (it, { serial }) =>
    it.serial.length >= 8 && (it.serial[0] ?? 0x80) < 0x80 && same(it.serial, serial),
  'issuer of the active authority': (it, { issuer }) => same(encodedOf(it.issuer), issuer),
  'validity as granted, not reversed': (it, { notBefore, notAfter }) =>
    notBefore < notAfter && isAt(it.notBefore, notBefore) && isAt(it.notAfter, notAfter),
  'empty subject': ({ subject }) => subject.end === subject.body,
  'public key as proven': (it, { publicKey }) => same(encodedOf(it.publicKey), publicKey),
  'the extensions of a leaf and no other': ({ extensions }) =>
    extensions.length === expectedIds.length &&
    expectedIds.every((wanted) => extensions.some(({ id }) => same(id, wanted))),
  'critical key usage digitalSignature alone': (it) =>
    extensionIn(it, ids.keyUsage)?.isCritical === true &&
    holds(it, ids.keyUsage, digitalSignatureAlone),
  'server and client purpose': (it) => holds(it, ids.extendedKeyUsage, serverAuthAndClientAuth),
  'no CA': (it) => holds(it, ids.basicConstraints, emptySequence),
  'key identifiers as granted': (it, { subjectKeyId, authorityKeyId }) =>
    holds(it, ids.subjectKeyIdentifier, keyIdHead, subjectKeyId) &&
    holds(it, ids.authorityKeyIdentifier, authorityKeyIdHead, authorityKeyId),
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
  for (const [name, isKept] of rulesInOrder) if (!isKept(it, granted)) return name
  return undefined
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

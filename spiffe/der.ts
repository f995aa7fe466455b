// A strict DER reader (X.690 §10) over offsets: no copies, no recursion, every length bounded.
import { IdentityError } from './errors.ts'

/** One tag-length-value; `start` is at the tag, `body` at the first content byte. */
export interface Element {
  readonly bytes: Uint8Array
  readonly tag: number
  readonly start: number
  readonly body: number
  readonly end: number
}

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  sequence: 0x30,
  set: 0x31,
  utcTime: 0x17,
  generalizedTime: 0x18,
} as const

export function derError(what: string, at: number): never {
  throw new IdentityError('ERR_DER', `${what} at byte ${at}`)
}

function byteAt(bytes: Uint8Array, at: number, limit: number): number {
  const byte = at < limit ? bytes[at] : undefined
  return byte ?? derError('truncated', at)
}

/** The element at `at`; everything has to end at or before `limit`. Throws ERR_DER. */
export function readElement(bytes: Uint8Array, at: number, limit: number): Element {
  const tag = byteAt(bytes, at, limit)
  const first = byteAt(bytes, at + 1, limit)
  if ((tag & 0x1f) === 0x1f) return derError('a tag number above 30', at)
  if (first < 0x80)
    return within({ bytes, tag, start: at, body: at + 2, end: at + 2 + first }, limit)
  const count = first & 0x7f
  if (count === 0) return derError('an indefinite length', at)
  if (count > 4) return derError('a length of more than 4 bytes', at)
  let length = 0
  for (let i = 0; i < count; i++) length = length * 256 + byteAt(bytes, at + 2 + i, limit)
  if (length < 0x80 || length < 256 ** (count - 1))
    return derError('a length not in its shortest form', at)
  const body = at + 2 + count
  return within({ bytes, tag, start: at, body, end: body + length }, limit)
}

function within(element: Element, limit: number): Element {
  if (element.end > limit) return derError('truncated', element.start)
  return element
}

/** The one element that `bytes` consists of. Throws ERR_DER on trailing bytes. */
export function parseDer(bytes: Uint8Array, tag: number = tags.sequence): Element {
  const element = readElement(bytes, 0, bytes.length)
  if (element.end !== bytes.length) return derError('trailing bytes', element.end)
  return expectTag(element, tag)
}

export function expectTag(element: Element | undefined, tag: number): Element {
  if (element === undefined) return derError(`a missing element of tag 0x${tag.toString(16)}`, 0)
  if (element.tag !== tag) {
    return derError(
      `tag 0x${element.tag.toString(16)} instead of 0x${tag.toString(16)}`,
      element.start,
    )
  }
  return element
}

/** The elements inside a constructed one, at most `most` of them. Throws ERR_DER. */
export function childrenOf(parent: Element, most = 64): Element[] {
  const list: Element[] = []
  for (let at = parent.body; at < parent.end; ) {
    if (list.length === most) return derError(`more than ${most} elements`, at)
    const child = readElement(parent.bytes, at, parent.end)
    list.push(child)
    at = child.end
  }
  return list
}

/** The one element inside an explicit tag. Throws ERR_DER when there is none, or more. */
export function onlyChildOf(parent: Element): Element {
  const child = readElement(parent.bytes, parent.body, parent.end)
  if (child.end !== parent.end) return derError('trailing bytes', child.end)
  return child
}

/** What stands between tag and end, without a copy. */
export function contentOf(element: Element): Uint8Array {
  return element.bytes.subarray(element.body, element.end)
}

/** The element with its tag and length, without a copy. */
export function encodedOf(element: Element): Uint8Array {
  return element.bytes.subarray(element.start, element.end)
}

/** Dotted decimal. Throws ERR_DER on an arc that is not in its shortest form or above 2^53. */
export function oidOf(element: Element | undefined): string {
  const it = expectTag(element, tags.oid)
  const arcs: number[] = []
  let arc = 0
  let isOpen = false
  for (const byte of contentOf(it)) {
    if (!isOpen && byte === 0x80)
      return derError('an object identifier not in its shortest form', it.start)
    arc = arc * 128 + (byte & 0x7f)
    if (arc > Number.MAX_SAFE_INTEGER)
      return derError('an object identifier arc too large', it.start)
    isOpen = byte >= 0x80
    if (isOpen) continue
    // the first two arcs share one number
    const top = Math.min(Math.floor(arc / 40), 2)
    arcs.push(...(arcs.length === 0 ? [top, arc - 40 * top] : [arc]))
    arc = 0
  }
  if (isOpen || arcs.length === 0) return derError('a truncated object identifier', it.start)
  return arcs.join('.')
}

/** Content bytes of an INTEGER in its shortest form, sign byte included. */
export function integerOf(element: Element | undefined): Uint8Array {
  const it = expectTag(element, tags.integer)
  const content = contentOf(it)
  const [a, b] = content
  if (a === undefined) return derError('an empty integer', it.start)
  const padded = b !== undefined && ((a === 0 && b < 0x80) || (a === 0xff && b >= 0x80))
  if (padded) return derError('an integer not in its shortest form', it.start)
  return content
}

/** A non-negative INTEGER below 2^31. Throws ERR_DER. */
export function smallIntegerOf(element: Element | undefined): number {
  const it = expectTag(element, tags.integer)
  const content = integerOf(it)
  if (content.length > 4 || byteAt(content, 0, 1) >= 0x80) {
    return derError('an integer out of range', it.start)
  }
  return content.reduce((sum, byte) => sum * 256 + byte, 0)
}

export function booleanOf(element: Element): boolean {
  const content = contentOf(expectTag(element, tags.boolean))
  const [value] = content
  if (content.length !== 1 || (value !== 0xff && value !== 0)) {
    return derError('a boolean that is neither 0x00 nor 0xff', element.start)
  }
  return value === 0xff
}

/** The bits of a BIT STRING with a whole number of bytes (keys and signatures). */
export function wholeBitsOf(element: Element | undefined): Uint8Array {
  const { bytes, body, end, start } = expectTag(element, tags.bitString)
  if (bytes[body] !== 0 || body === end) return derError('a bit string with unused bits', start)
  return bytes.subarray(body + 1, end)
}

/** The bits of a named bit list as a number, bit 0 of the standard being the lowest (16 bits at most). */
export function namedBitsOf(element: Element | undefined): number {
  const it = expectTag(element, tags.bitString)
  const [unused, ...octets] = contentOf(it)
  if (unused === undefined || unused > 7 || octets.length > 2) {
    return derError('a malformed named bit list', it.start)
  }
  const last = octets.at(-1)
  const lowest = 1 << unused
  // the last bit written is a one, and what is unused after it is zero
  const isShortest = last === undefined ? unused === 0 : (last & (2 * lowest - 1)) === lowest
  if (!isShortest) return derError('a named bit list not in its shortest form', it.start)
  let bits = 0
  for (const [i, octet] of octets.entries()) {
    for (let bit = 0; bit < 8; bit++) {
      if ((octet & (0x80 >> bit)) !== 0) bits |= 1 << (8 * i + bit)
    }
  }
  return bits
}

const utcForm = /^\d{12}Z$/
const generalizedForm = /^\d{14}Z$/
const isoParts = /^(....)(..)(..)(..)(..)(..)Z$/

/** Milliseconds since the epoch of a UTCTime or GeneralizedTime as RFC 5280 §4.1.2.5 allows them. */
export function timeOf(element: Element | undefined): number {
  const isUtc = element?.tag === tags.utcTime
  const it = expectTag(element, isUtc ? tags.utcTime : tags.generalizedTime)
  const text = Buffer.from(contentOf(it)).toString('latin1')
  if (!(isUtc ? utcForm : generalizedForm).test(text)) return derError('a malformed time', it.start)
  const full = isUtc ? `${Number(text.slice(0, 2)) < 50 ? '20' : '19'}${text}` : text
  const iso = full.replace(isoParts, '$1-$2-$3T$4:$5:$6.000Z')
  const at = Date.parse(iso)
  // a day or hour out of range either fails to parse or rolls over to another instant
  if (Number.isNaN(at) || new Date(at).toISOString() !== iso) {
    return derError('a time that does not exist', it.start)
  }
  return at
}

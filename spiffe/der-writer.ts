// Writes DER: each function returns one whole element.
import { tags } from './der.ts'

function lengthBytes(length: number): number[] {
  if (length < 0x80) return [length]
  const bytes: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest & 0xff)
  return [0x80 | bytes.length, ...bytes]
}

/** One element of `tag` whose content is the parts, one after the other. */
export function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  let length = 0
  for (const part of parts) length += part.length
  const head = lengthBytes(length)
  const out = Buffer.allocUnsafe(1 + head.length + length)
  out[0] = tag
  out.set(head, 1)
  let at = 1 + head.length
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer =>
  element(tags.sequence, ...parts)

export const set = (...parts: readonly Uint8Array[]): Buffer => element(tags.set, ...parts)

export const octetString = (content: Uint8Array): Buffer => element(tags.octetString, content)

/** A BIT STRING of whole bytes. */
export const bitString = (content: Uint8Array): Buffer =>
  element(tags.bitString, Buffer.of(0), content)

/** A non-negative INTEGER from its big-endian magnitude; the shortest form is made here. */
export function integer(magnitude: Uint8Array): Buffer {
  let at = 0
  while (at < magnitude.length - 1 && magnitude[at] === 0) at++
  const shortest = magnitude.subarray(at)
  const [first] = shortest
  const needsSign = first === undefined || first >= 0x80
  return needsSign ? element(tags.integer, Buffer.of(0), shortest) : element(tags.integer, shortest)
}

/** From dotted decimal. */
export function oid(dotted: string): Buffer {
  const arcs = dotted.split('.').map(Number)
  const head = arcs.splice(0, 2).reduce((top, second) => top * 40 + second)
  const bytes: number[] = []
  for (const arc of [head, ...arcs]) {
    const digits = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) {
      digits.unshift((left % 128) | 0x80)
    }
    bytes.push(...digits)
  }
  return element(tags.oid, Buffer.from(bytes))
}

const two = (value: number) => (value < 10 ? `0${value}` : String(value))

/** UTCTime until 2049, GeneralizedTime after (RFC 5280 §4.1.2.5); `at` in milliseconds, cut to seconds. */
export function time(at: number): Buffer {
  const date = new Date(at)
  const year = date.getUTCFullYear()
  const isUtc = year >= 1950 && year < 2050
  const day = `${two(date.getUTCMonth() + 1)}${two(date.getUTCDate())}`
  const clock = `${two(date.getUTCHours())}${two(date.getUTCMinutes())}${two(date.getUTCSeconds())}`
  const years = isUtc ? two(year % 100) : String(year).padStart(4, '0')
  return element(
    isUtc ? tags.utcTime : tags.generalizedTime,
    Buffer.from(`${years}${day}${clock}Z`, 'latin1'),
  )
}

/** A named bit list from the positions that are set; an empty list is the empty bit string. */
export function namedBits(positions: readonly number[]): Buffer {
  const highest = Math.max(-1, ...positions)
  const bytes = Buffer.alloc(Math.floor(highest / 8) + 1)
  for (const bit of positions) {
    bytes.writeUInt8(bytes.readUInt8(bit >> 3) | (0x80 >> (bit & 7)), bit >> 3)
  }
  const unused = highest < 0 ? 0 : 7 - (highest & 7)
  return element(tags.bitString, Buffer.of(unused), bytes)
}

/** An X.509 extension (RFC 5280 §4.1); FALSE is never written. */
export function extension(id: string, value: Uint8Array, options: { critical: boolean }): Buffer {
  return options.critical
    ? sequence(oid(id), element(tags.boolean, Buffer.of(0xff)), octetString(value))
    : sequence(oid(id), octetString(value))
}

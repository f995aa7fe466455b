// Protobuf on the wire, walked through without making messages of it: fields that are named in a shape are
// handed over as places in the bytes, all others are passed over.
import { IdentityError } from '../../spiffe/errors.ts'

type Part<T> = (into: T, bytes: Buffer, from: number, to: number) => void

export interface Shape<T> {
  /** by number: strings, bytes and messages */
  readonly parts: Readonly<Record<number, Part<T>>>
  /** by number: integers, of which the lower 32 bits count */
  readonly numbers?: Readonly<Record<number, (into: T, value: number) => void>>
}

interface Cursor {
  at: number
  readonly bytes: Buffer
  readonly to: number
}

const mostVarint = 10
const deepest = 100
const kinds = { varint: 0, fixed64: 1, length: 2, group: 3, fixed32: 5 } as const

export function malformed(why: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `request is malformed: ${why}`)
}

function varint(cursor: Cursor): number {
  const { bytes, to } = cursor
  // most are one byte
  const first = bytes[cursor.at] ?? 128
  if (first < 128 && cursor.at < to) {
    cursor.at++
    return first
  }
  let value = 0
  for (let i = 0; i < mostVarint && cursor.at < to; i++) {
    const byte = bytes[cursor.at++] ?? 0
    if (i < 5) value |= (byte & 127) << (7 * i)
    if (byte < 128) return value >>> 0
  }
  return malformed('a number without end')
}

function passGroup(cursor: Cursor, field: number, depth: number): void {
  if (depth > deepest) malformed('groups that are too deep')
  for (;;) {
    const tag = varint(cursor)
    if ((tag & 7) === 4) {
      if (tag >>> 3 !== field) malformed('a group that ends as another')
      return
    }
    pass(cursor, tag, depth)
  }
}

function pass(cursor: Cursor, tag: number, depth = 0): void {
  switch (tag & 7) {
    case kinds.varint:
      varint(cursor)
      break
    case kinds.fixed64:
      cursor.at += 8
      break
    case kinds.length: {
      const length = varint(cursor)
      cursor.at += length
      break
    }
    case kinds.group:
      passGroup(cursor, tag >>> 3, depth + 1)
      break
    case kinds.fixed32:
      cursor.at += 4
      break
    default:
      malformed('a field of no kind')
  }
  if (cursor.at > cursor.to) malformed('a field that ends after its message')
}

/** Throws ERR_BAD_REQUEST. */
export function walk<T>(into: T, shape: Shape<T>, bytes: Buffer, from: number, to: number): void {
  const cursor = { at: from, bytes, to }
  while (cursor.at < to) {
    const tag = varint(cursor)
    const field = tag >>> 3
    if (field === 0) malformed('a field without number')
    const part = shape.parts[field]
    const number = shape.numbers?.[field]
    if (part !== undefined && (tag & 7) === kinds.length) {
      const length = varint(cursor)
      const start = cursor.at
      cursor.at += length
      if (cursor.at > to) malformed('a field that ends after its message')
      part(into, bytes, start, cursor.at)
    } else if (number !== undefined && (tag & 7) === kinds.varint) number(into, varint(cursor))
    else if (part !== undefined || number !== undefined) malformed('a field of another kind')
    else pass(cursor, tag)
  }
}

/** A message inside of another: again, it adds to the one before. */
export const inside =
  <T, U>(shape: Shape<U>, of: (into: T) => U): Part<T> =>
  (into, bytes, from, to) =>
    walk(of(into), shape, bytes, from, to)

function strictText(bytes: Buffer, from: number, to: number): string {
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
    return decoder.decode(bytes.subarray(from, to))
  } catch {
    return malformed('a string that is no UTF-8')
  }
}

/** A string. Throws ERR_BAD_REQUEST for what is no UTF-8. */
export function text(bytes: Buffer, from: number, to: number): string {
  for (let at = from; at < to; at++) if ((bytes[at] ?? 0) > 127) return strictText(bytes, from, to)
  return bytes.toString('latin1', from, to)
}

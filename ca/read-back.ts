// A second, independent DER reader: walks a signed leaf front to back, sharing no code with the reader
// and the writer in spiffe/, and says what a relying party will see. Kept apart on purpose: one bug in
// a shared reader would hide itself.
import { IdentityError } from '../spiffe/errors.ts'

export interface SeenLeaf {
  readonly serial: string
  readonly uris: readonly string[]
  /** milliseconds since the epoch */
  readonly notAfter: number
  readonly signature: Uint8Array
  readonly tbs: Uint8Array
}

interface Cursor {
  readonly bytes: Buffer
  at: number
}

function fail(at: number): never {
  throw new IdentityError('ERR_LINT', `a signed leaf does not read back (byte ${at})`)
}

/** Steps over the header of an element with `tag` and returns where its content ends. */
function enter(cursor: Cursor, tag: number): number {
  const { bytes } = cursor
  if (bytes[cursor.at] !== tag) fail(cursor.at)
  const first = bytes[cursor.at + 1] ?? fail(cursor.at)
  const extra = first < 128 ? 0 : first - 128
  // 0x80, an indefinite length, included
  const isBad = first === 128 || extra > 3 || cursor.at + 2 + extra > bytes.length
  if (isBad) fail(cursor.at)
  const length = extra === 0 ? first : bytes.readUIntBE(cursor.at + 2, extra)
  cursor.at += 2 + extra
  const end = cursor.at + length
  return end <= bytes.length ? end : fail(cursor.at)
}

function skip(cursor: Cursor, tag: number): void {
  cursor.at = enter(cursor, tag)
}

function take(cursor: Cursor, tag: number): Buffer {
  const end = enter(cursor, tag)
  const content = cursor.bytes.subarray(cursor.at, end)
  cursor.at = end
  return content
}

function utcMillis(text: string): number {
  const full = text.length === 13 ? `20${text}` : text
  const part = (from: number, to: number) => Number(full.slice(from, to))
  return Date.UTC(part(0, 4), part(4, 6) - 1, part(6, 8), part(8, 10), part(10, 12), part(12, 14))
}

/** Whether `oid` is 2.5.29.17, subjectAltName. */
function isSubjectAltName(oid: Buffer): boolean {
  return oid.length === 3 && oid[0] === 0x55 && oid[1] === 0x1d && oid[2] === 0x11
}

/** The URI names of the extension list that `cursor` stands in, up to `end`. */
function urisIn(cursor: Cursor, end: number): string[] {
  const uris: string[] = []
  while (cursor.at < end) {
    const after = enter(cursor, 0x30)
    const oid = take(cursor, 0x06)
    if (cursor.bytes[cursor.at] === 0x01) skip(cursor, 0x01)
    const namesEnd = enter(cursor, 0x04)
    if (isSubjectAltName(oid)) {
      enter(cursor, 0x30)
      while (cursor.at < namesEnd) {
        const tag = cursor.bytes[cursor.at] ?? fail(cursor.at)
        const name = take(cursor, tag)
        if (tag === 0x86) uris.push(name.toString('latin1'))
      }
    }
    cursor.at = after
  }
  return uris
}

export function readBack(leaf: Uint8Array): SeenLeaf {
  const cursor: Cursor = { bytes: Buffer.from(leaf.buffer, leaf.byteOffset, leaf.length), at: 0 }
  if (enter(cursor, 0x30) !== leaf.length) fail(0)
  const start = cursor.at
  const end = enter(cursor, 0x30)
  skip(cursor, 0xa0)
  const serial = take(cursor, 0x02).toString('hex')
  skip(cursor, 0x30)
  skip(cursor, 0x30)
  enter(cursor, 0x30)
  skip(cursor, cursor.bytes[cursor.at] ?? 0)
  const notAfter = utcMillis(take(cursor, cursor.bytes[cursor.at] ?? 0).toString('latin1'))
  skip(cursor, 0x30)
  skip(cursor, 0x30)
  enter(cursor, 0xa3)
  const uris = urisIn(cursor, enter(cursor, 0x30))
  if (cursor.at !== end) fail(cursor.at)
  skip(cursor, 0x30)
  const signature = take(cursor, 0x03).subarray(1)
  if (cursor.at !== leaf.length) fail(cursor.at)
  return {
    serial: serial.replace(/^00/, ''),
    uris,
    notAfter,
    signature,
    tbs: cursor.bytes.subarray(start, end),
  }
}

// gRPC's length-prefixed messages: one flag byte, four bytes of length, the message.
import { IdentityError } from '../../spiffe/errors.ts'

const prefixBytes = 5

export interface FrameReader {
  /** Calls back for each message that `chunk` completes; throws an IdentityError on a bad prefix. */
  push(chunk: Uint8Array): void
  /** whether the bytes so far end inside a message */
  readonly partial: boolean
}

function checkPrefix(flag: number, length: number, limit: number): void {
  if (flag === 1) {
    throw new IdentityError('ERR_UNIMPLEMENTED', 'compressed messages are not supported')
  }
  if (flag !== 0) throw new IdentityError('ERR_BAD_REQUEST', `message has unknown flags ${flag}`)
  if (length > limit) {
    throw new IdentityError(
      'ERR_TOO_LARGE',
      `message of ${length} bytes is over the limit of ${limit}`,
    )
  }
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const whole = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** `limit` is decided on the prefix, before any byte of the message is kept. */
export function createFrameReader(
  limit: number,
  onMessage: (message: Uint8Array) => void,
): FrameReader {
  const prefix = new Uint8Array(prefixBytes)
  let prefixed = 0
  let length = 0
  let kept: Uint8Array[] = []
  let keptBytes = 0

  function readPrefix(chunk: Uint8Array, from: number): number {
    let at = from
    while (prefixed < prefixBytes && at < chunk.length) prefix[prefixed++] = chunk[at++] ?? 0
    if (prefixed < prefixBytes) return at
    const [flag = 0, a = 0, b = 0, c = 0, d = 0] = prefix
    length = ((a << 24) | (b << 16) | (c << 8) | d) >>> 0
    checkPrefix(flag, length, limit)
    return at
  }

  function readBody(chunk: Uint8Array, from: number): number {
    const to = Math.min(chunk.length, from + length - keptBytes)
    const part = chunk.subarray(from, to)
    if (keptBytes + part.length < length) {
      if (part.length > 0) kept.push(part)
      keptBytes += part.length
      return to
    }
    const message = kept.length === 0 ? part : joined([...kept, part], length)
    prefixed = 0
    kept = []
    keptBytes = 0
    onMessage(message)
    return to
  }

  return {
    push(chunk) {
      let at = 0
      while (at < chunk.length) {
        if (prefixed < prefixBytes) at = readPrefix(chunk, at)
        if (prefixed === prefixBytes) at = readBody(chunk, at)
      }
    },
    get partial() {
      return prefixed > 0
    },
  }
}

export const framedSize = (message: Uint8Array) => prefixBytes + message.length

/** Writes `message` with its prefix at `at`, and gives the place after it. */
export function putFrame(into: Buffer, at: number, message: Uint8Array): number {
  into[at] = 0
  into.writeUInt32BE(message.length, at + 1)
  into.set(message, at + prefixBytes)
  return at + prefixBytes + message.length
}

/** One message with its prefix, ready for the wire. */
export function encodeFrame(message: Uint8Array): Uint8Array {
  const frame = Buffer.allocUnsafe(framedSize(message))
  putFrame(frame, 0, message)
  return frame
}

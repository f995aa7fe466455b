// Frames of HTTP/2 (RFC 9113 §4): read from whatever chunks come, and written into one buffer for each turn.

export const types = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  push: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

export const flags = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const

export const errors = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
} as const
export type ErrorCode = (typeof errors)[keyof typeof errors]

const codes = new WeakMap<Error, ErrorCode>()

/** Why a connection cannot go on. */
export function broken(code: ErrorCode, message: string): Error {
  const error = new Error(message)
  codes.set(error, code)
  return error
}

/** What the other side is told; anything else that is thrown is our own mistake. */
export function codeOf(error: unknown): ErrorCode {
  return (error instanceof Error ? codes.get(error) : undefined) ?? errors.internal
}

export const headBytes = 9
/** what we take, and what everybody takes */
export const frameBytes = 16_384
export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
export const largestWindow = 2 ** 31 - 1

/** Four bytes. */
export function number(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  /** valid as long as it is handled */
  readonly payload: Buffer
}

export interface FrameReader {
  /** Gives each frame that is whole by now. Throws what is `broken`. */
  push(chunk: Buffer, take: (frame: Frame) => void): void
}

export function createFrameReader(): FrameReader {
  let rest: Buffer = Buffer.alloc(0)
  let isBegun = false

  function begin(bytes: Buffer): number {
    const length = Math.min(bytes.length, preface.length)
    if (bytes.compare(preface, 0, length, 0, length) !== 0)
      throw broken(errors.protocol, 'no preface')
    if (length < preface.length) return 0
    isBegun = true
    return length
  }

  return {
    push(chunk, take) {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      let at = isBegun ? 0 : begin(bytes)
      while (isBegun && bytes.length - at >= headBytes) {
        const length = bytes.readUIntBE(at, 3)
        if (length > frameBytes) throw broken(errors.frameSize, 'a frame too large')
        const end = at + headBytes + length
        if (end > bytes.length) break
        take({
          type: bytes[at + 3] ?? 0,
          flags: bytes[at + 4] ?? 0,
          stream: bytes.readUInt32BE(at + 5) & 0x7fff_ffff,
          payload: bytes.subarray(at + headBytes, end),
        })
        at = end
      }
      rest = at === bytes.length ? Buffer.alloc(0) : bytes.subarray(at)
    },
  }
}

/** Bytes that are written together. */
export interface Outbox {
  /** Room for so many bytes: a buffer and where they begin. */
  take(length: number): { readonly bytes: Buffer; readonly at: number }
  frame(type: number, flags: number, stream: number, payload: Uint8Array): void
  /** What was put in since it was last called. */
  flush(): Buffer | undefined
}

const usualRoom = 8192

export function createOutbox(): Outbox {
  let bytes: Buffer = Buffer.alloc(0)
  let used = 0

  function take(length: number) {
    if (used + length > bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(usualRoom, 2 * (used + length)))
      bytes.copy(larger, 0, 0, used)
      bytes = larger
    }
    const at = used
    used += length
    return { bytes, at }
  }

  return {
    take,
    frame(type, its, stream, payload) {
      const room = take(headBytes + payload.length)
      putHead(room.bytes, room.at, { type, flags: its, stream, length: payload.length })
      room.bytes.set(payload, room.at + headBytes)
    },
    flush() {
      if (used === 0) return undefined
      const written = bytes.subarray(0, used)
      // the rest is for the next turn: nobody writes into what is on its way
      bytes = bytes.subarray(used)
      used = 0
      return written
    },
  }
}

export function putHead(
  bytes: Buffer,
  at: number,
  { type, flags: its, stream, length }: Omit<Frame, 'payload'> & { readonly length: number },
): void {
  bytes.writeUIntBE(length, at, 3)
  bytes[at + 3] = type
  bytes[at + 4] = its
  bytes.writeUInt32BE(stream, at + 5)
}

/** Without padding. Throws what is `broken`. */
export function unpadded({ flags: its, payload }: Frame): Buffer {
  if ((its & flags.padded) === 0) return payload
  const [padding = 0] = payload
  if (padding >= payload.length) throw broken(errors.protocol, 'more padding than frame')
  return payload.subarray(1, payload.length - padding)
}

// HTTP/2 byte by byte (RFC 9113, RFC 7541), for what no library would send.

export const types = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

const endStream = 1
const endHeaders = 4

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(9 + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes.writeUInt8(type, 3)
  bytes.writeUInt8(flags, 4)
  bytes.writeUInt32BE(stream, 5)
  bytes.set(payload, 9)
  return bytes
}

/** What a client begins with; `window` bytes may come on each stream, and any number on all. */
export function opening(window = 65_535): Buffer {
  const settings = Buffer.alloc(6)
  settings.writeUInt16BE(4, 0)
  settings.writeUInt32BE(window, 2)
  const more = Buffer.alloc(4)
  more.writeUInt32BE(2 ** 31 - 1 - 65_535)
  return Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    frame(types.settings, 0, 0, settings),
    frame(types.windowUpdate, 0, 0, more),
  ])
}

/** An integer with a prefix of seven bits (RFC 7541 §5.1). */
function length(value: number): number[] {
  if (value < 127) return [value]
  const bytes = [127]
  let rest = value - 127
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return [...bytes, rest]
}

export type Field = readonly [name: string, value: string]

/** Literal fields that are never indexed; names and values go out as they are, each character a byte. */
export function fieldBlock(fields: readonly Field[]): Buffer {
  const text = (it: string) => [Buffer.from(length(it.length)), Buffer.from(it, 'latin1')]
  return Buffer.concat(
    fields.flatMap(([name, value]) => [Buffer.of(0x10), ...text(name), ...text(value)]),
  )
}

export const grpcFields = (path: string): readonly Field[] => [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', path],
  [':authority', 'localhost'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
]

export const workloadFields = (method: string): readonly Field[] => [
  ...grpcFields(`/SpiffeWorkloadAPI/${method}`),
  ['workload.spiffe.io', 'true'],
]

/** A request with one message, complete; an empty one when left out. */
export function request(
  stream: number,
  fields: readonly Field[],
  message = new Uint8Array(),
): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([
    frame(types.headers, endHeaders, stream, fieldBlock(fields)),
    frame(types.data, endStream, stream, Buffer.concat([prefix, message])),
  ])
}

/** The frames that are complete. */
export function framesIn(bytes: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at + 9 <= bytes.length; ) {
    const end = at + 9 + bytes.readUIntBE(at, 3)
    if (end > bytes.length) break
    frames.push({
      type: bytes.readUInt8(at + 3),
      flags: bytes.readUInt8(at + 4),
      stream: bytes.readUInt32BE(at + 5),
      payload: bytes.subarray(at + 9, end),
    })
    at = end
  }
  return frames
}

/** The gRPC messages of one stream. */
export function messagesIn(frames: readonly Frame[], stream: number): Buffer[] {
  const body = Buffer.concat(
    frames
      .filter((it) => it.type === types.data && it.stream === stream)
      .map(({ payload }) => payload),
  )
  const messages: Buffer[] = []
  for (let at = 0; at + 5 <= body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1)
    if (end > body.length) break
    messages.push(body.subarray(at + 5, end))
    at = end
  }
  return messages
}

// What a connection that is not served is told: the two frames of HTTP/2 that say goodbye, with a reason that
// clients show to people.
import { constants } from 'node:http2'
import type { Socket } from 'node:net'

const frameHeader = 9
const types = { settings: 4, goaway: 7 } as const
// grpc-go logs it whole
const longestReason = 256

/** On stream 0, without flags (RFC 9113 §4.1). */
function frame(type: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(frameHeader + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes[3] = type
  bytes.set(payload, frameHeader)
  return bytes
}

/** Settings, which a server has to begin with, and a GOAWAY (RFC 9113 §6.8) of a server that took no stream. */
function goodbyeBytes(reason: string): Buffer {
  const text = Buffer.from(reason).subarray(0, longestReason)
  const payload = Buffer.alloc(8 + text.length)
  payload.writeUInt32BE(constants.NGHTTP2_ENHANCE_YOUR_CALM, 4)
  payload.set(text, 8)
  return Buffer.concat([frame(types.settings, new Uint8Array()), frame(types.goaway, payload)])
}

/** Ends a connection that has not begun. Nothing that it sends is read; it is closed as soon as this is out. */
export function sayGoodbye(socket: Socket, reason: string): void {
  socket.on('error', () => {})
  socket.end(goodbyeBytes(reason), () => socket.destroy())
}

// What a connection begins with, looked at before anyone reads it: TLS, HTTP/2 with prior knowledge, or something else.
import type { Socket } from 'node:net'

export type Beginning = 'tls' | 'h2' | 'other'

// RFC 8446 §5.1: the content type of a record with a handshake message
const handshakeRecord = 0x16
// RFC 9113 §3.4; no method of HTTP/1.1 begins so
const preface = Buffer.from('PRI * HTTP/2.0\r\n')

/** Undefined while more bytes are needed to tell. */
export function beginningOf(bytes: Uint8Array): Beginning | undefined {
  if (bytes.length === 0) return undefined
  if (bytes[0] === handshakeRecord) return 'tls'
  const length = Math.min(bytes.length, preface.length)
  if (!preface.subarray(0, length).equals(bytes.subarray(0, length))) return 'other'
  return length === preface.length ? 'h2' : undefined
}

/**
 * Calls `found` once, with the socket paused and its bytes put back. A connection that ends before is destroyed;
 * the limit for those that say nothing is the caller's.
 */
export function awaitBeginning(socket: Socket, found: (beginning: Beginning) => void): void {
  let seen: Buffer = Buffer.alloc(0)
  const leave = () => void socket.destroy()
  function look(part: Buffer): void {
    seen = Buffer.concat([seen, part])
    const beginning = beginningOf(seen)
    if (beginning === undefined) return
    socket.off('data', look)
    socket.off('end', leave)
    socket.pause()
    socket.unshift(seen)
    found(beginning)
  }
  socket.on('data', look)
  socket.once('end', leave)
}

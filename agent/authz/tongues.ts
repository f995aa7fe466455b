// Which protocol a connection speaks, by its first bytes: HTTP/2 begins with PRI (RFC 9113 §3.4), which is no
// method of HTTP/1.1.
import type { Socket } from 'node:net'
import type { Visitor } from './visitor.ts'

const preface = Buffer.from('PRI')
/** milliseconds for the first bytes */
const patience = 10_000

/** A protocol, for connections that somebody else accepts. */
export interface Tongue {
  serve(socket: Socket, visitor: Visitor): void
  readonly connections: number
  /** Resolves once what was asked is answered and the connections have ended, or are late. */
  drain(): Promise<void>
}

export interface Tongues {
  readonly http1: Tongue
  readonly http2: Tongue
}

/** Undefined while that cannot be told. */
function tongueOf(start: Buffer): keyof Tongues | undefined {
  const length = Math.min(start.length, preface.length)
  if (!start.subarray(0, length).equals(preface.subarray(0, length))) return 'http1'
  return length < preface.length ? undefined : 'http2'
}

/** Hands the connection on once it has said something; the bytes are there again for whoever takes it. */
export function listenTo(socket: Socket, visitor: Visitor, tongues: Tongues): void {
  let start: Buffer = Buffer.alloc(0)
  const silent = () => void socket.destroy()
  const done = () => {
    socket.off('readable', look).off('end', silent).off('error', silent).off('timeout', silent)
    socket.setTimeout(0)
  }
  function look(): void {
    for (let part = socket.read(); part !== null; part = socket.read())
      start = Buffer.concat([start, part])
    if (start.length === 0) return
    const tongue = tongueOf(start)
    if (tongue === undefined) return
    done()
    socket.unshift(start)
    tongues[tongue].serve(socket, visitor)
  }
  socket.setTimeout(patience, silent)
  socket.on('readable', look).on('end', silent).on('error', silent)
}

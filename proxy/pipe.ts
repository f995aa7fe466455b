// Bytes both ways between two sockets: half-close passes on, a break of one side breaks the other.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** One side of a pipe; its socket has to be open for half-close (`allowHalfOpen`). */
export interface Side {
  readonly socket: Socket
  /** Ends it so that whoever is there can tell it from an end of the bytes. */
  break(): void
}

export interface TlsSide extends Side {
  readonly socket: TLSSocket
}

/** A TCP socket, broken by a reset. */
export function plainSide(socket: Socket): Side {
  return {
    socket,
    break() {
      if (!socket.destroyed) socket.resetAndDestroy()
    },
  }
}

/**
 * A TLS socket over `tcp`, broken by a reset of that: Node shows a connection that ended without
 * close_notify like one that ended with it, so destroying it would look like a half-close.
 */
export function tlsSide(socket: TLSSocket, tcp: Socket): TlsSide {
  return {
    socket,
    break() {
      if (!tcp.destroyed) tcp.resetAndDestroy()
      socket.destroy()
    },
  }
}

export function pipeBoth(one: Side, other: Side): void {
  const breaksWith = ({ socket }: Side, its: Side) => {
    socket.on('error', () => {})
    socket.once('close', (hadError) => {
      // otherwise both directions were over, and the rest is on its way out of the other side
      if (hadError || !socket.readableEnded || !socket.writableFinished) its.break()
    })
  }
  breaksWith(one, other)
  breaksWith(other, one)
  one.socket.pipe(other.socket)
  other.socket.pipe(one.socket)
}

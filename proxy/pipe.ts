// Bytes both ways between two sockets: half-close passes on, a break of one side breaks the other.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** One side of a pipe; its socket has to be open for half-close (`allowHalfOpen`). */
export interface Side {
  readonly socket: Socket
  /** Ends it at once, whatever is under way. */
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
 * A TLS socket, closed without close_notify. Node on the other end shows that as an end of the bytes,
 * hence the limit for half-open tunnels; a reset of the TCP socket below would tell it apart, but
 * crashes Node 24.20 (SIGSEGV in TLSWrap).
 */
export function tlsSide(socket: TLSSocket): TlsSide {
  return { socket, break: () => void socket.destroy() }
}

/** `halfOpen` = milliseconds that one direction may be silent once the other is over. */
export function pipeBoth(
  one: Side,
  other: Side,
  { halfOpen }: { readonly halfOpen: number },
): void {
  const breaksWith = ({ socket }: Side, its: Side) => {
    socket.once('end', () => its.socket.setTimeout(halfOpen, its.break))
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

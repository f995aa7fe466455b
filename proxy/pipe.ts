// Bytes both ways between two sockets: half-close passes on, a break of one side breaks the other.
import { connect, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { Address } from '../runtime/config.ts'

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

export function isTlsSide(side: Side): side is TlsSide {
  return side.socket instanceof TLSSocket
}

type Limits = { readonly halfOpen: number }

/** `halfOpen` = milliseconds that one direction may be silent once the other is over. */
function breakWith({ socket }: Side, other: Side, { halfOpen }: Limits): void {
  socket.once('end', () => other.socket.setTimeout(halfOpen, other.break))
  socket.on('error', () => {})
  socket.once('close', (hadError) => {
    // otherwise both directions were over, and the rest is on its way out of the other side
    if (hadError || !socket.readableEnded || !socket.writableFinished) other.break()
  })
}

export function pipeBoth(one: Side, other: Side, limits: Limits): void {
  breakWith(one, other, limits)
  breakWith(other, one, limits)
  one.socket.pipe(other.socket)
  other.socket.pipe(one.socket)
}

// One for all connections: what was read into it is taken before the next read of anyone.
const landing = Buffer.allocUnsafeSlow(64 * 1024)

/**
 * Connects `peer` with a workload. Its bytes land in the shared buffer and are encrypted from there
 * within the same call, which saves a stream and an allocation per read; they are copied only while an
 * earlier write waits.
 */
export function pipeToWorkload(peer: TlsSide, address: Address, limits: Limits): Socket {
  const { socket } = peer
  function callback(length: number, bytes: Uint8Array): boolean {
    const part = bytes.subarray(0, length)
    const goesOn = socket.write(socket.writableLength === 0 ? part : Buffer.from(part))
    if (!goesOn) socket.once('drain', () => workload.resume())
    return goesOn
  }
  const onread = { buffer: landing, callback }
  const workload = connect({ ...address, allowHalfOpen: true, noDelay: true, onread })
  const side = plainSide(workload)
  breakWith(peer, side, limits)
  breakWith(side, peer, limits)
  socket.pipe(workload)
  workload.once('end', () => socket.end())
  return workload
}

// Handshakes under way, and connections that have said nothing yet, each with an end: Node's own timeout starts anew with every byte that trickles in.
import type { Socket } from 'node:net'
import type { Clock } from '../runtime/clock.ts'
import { every } from '../runtime/lifecycle.ts'
import type { Limits } from './limits.ts'

export interface Handshakes extends AsyncDisposable {
  begin(socket: Socket): void
  /** `socket` is what the TCP socket has become. */
  end(socket: Socket): void
}

// a TLS socket does not show the socket it stands on, but has its addresses
const keyOf = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`

export function createHandshakes(limits: Limits, clock: Clock): Handshakes {
  const open = new Map<string, { readonly socket: Socket; readonly until: number }>()
  const loop = every(clock, Math.min(limits.recheck, limits.handshake), () => {
    const now = clock.monotonic()
    for (const { socket, until } of open.values()) if (now >= until) socket.destroy()
  })
  return {
    begin(socket) {
      const key = keyOf(socket)
      open.set(key, { socket, until: clock.monotonic() + limits.handshake })
      socket.once('close', () => {
        if (open.get(key)?.socket === socket) open.delete(key)
      })
    },
    end: (socket) => void open.delete(keyOf(socket)),
    [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose](),
  }
}

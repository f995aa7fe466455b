// Bytes both ways between two sockets: half-close passes on, a failure of one side ends the other.
import type { Socket } from 'node:net'

/** Both sockets have to be open for half-close (`allowHalfOpen`). */
export function pipeBoth(one: Socket, other: Socket): void {
  const endsWith = (it: Socket, its: Socket) => {
    it.on('error', () => its.destroy())
    it.once('close', () => {
      // what both sides had finished may still be on its way out of the other
      if (!it.readableEnded || !it.writableFinished) its.destroy()
    })
  }
  endsWith(one, other)
  endsWith(other, one)
  one.pipe(other)
  other.pipe(one)
}

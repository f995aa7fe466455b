// How many connections a listener may have, and which idle one makes room for another.
import type { Socket } from 'node:net'
import { IdentityError } from '../spiffe/errors.ts'

export interface Slots {
  /** Throws ERR_EXHAUSTED when all are taken and none is idle. */
  take(): Slot
}

/** Given back when the socket closes, or by disposing it where there is none. */
export interface Slot extends Disposable {
  isFor(socket: Socket): void
}

/** `dropIdle` ends a connection that nobody uses, if there is one. */
export function createSlots(most: number, dropIdle: () => Socket | undefined): Slots {
  const slots = new WeakMap<Socket, Disposable>()
  let taken = 0

  function makeRoom(): boolean {
    const socket = dropIdle()
    if (socket === undefined) return false
    // it closes a moment later
    slots.get(socket)?.[Symbol.dispose]()
    return true
  }

  return {
    take() {
      if (taken >= most && !makeRoom())
        throw new IdentityError('ERR_EXHAUSTED', `${taken} connections are all there may be`)
      taken++
      let isFree = false
      const slot: Slot = {
        isFor(socket) {
          slots.set(socket, slot)
          socket.once('close', () => slot[Symbol.dispose]())
        },
        [Symbol.dispose]() {
          if (!isFree) taken--
          isFree = true
        },
      }
      return slot
    },
  }
}

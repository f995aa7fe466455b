// How many connections one user of the node may have: who opens all there are keeps nobody else out.
import type { Socket } from 'node:net'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Caller } from './caller.ts'

/** 33 KiB each with a stream */
export const mostPerUser = 4096

/** Throws ERR_EXHAUSTED for one connection too many of a user; those that are open go on. */
export function admitPerUser(
  callers: (socket: Socket) => Caller,
  most = mostPerUser,
): (socket: Socket) => Caller {
  const open = new Map<number, number>()

  function leave(uid: number): void {
    const left = (open.get(uid) ?? 1) - 1
    if (left === 0) open.delete(uid)
    else open.set(uid, left)
  }

  return (socket) => {
    const caller = callers(socket)
    const { uid } = caller.process
    const count = open.get(uid) ?? 0
    if (count >= most) {
      caller[Symbol.dispose]()
      throw new IdentityError('ERR_EXHAUSTED', `user ${uid} has ${count} connections already`)
    }
    open.set(uid, count + 1)
    let isOpen = true
    return {
      ...caller,
      [Symbol.dispose]() {
        if (isOpen) leave(uid)
        isOpen = false
        caller[Symbol.dispose]()
      },
    }
  }
}
